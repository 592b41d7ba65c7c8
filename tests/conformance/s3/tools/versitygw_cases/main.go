// Runs single cases of versitygw's S3 suite in one process, several at a time, and reports each as a line of JSON.
//
//	versitygw-cases list                   one line a case: {"group","case","alone"}
//	versitygw-cases run [flags] <names     runs the cases named on standard input
//
// Differences from `versitygw test`: a case that panics on its own goroutine fails alone; bucket names never repeat between
// processes; every case has a time limit. A panic on a goroutine that a case started still ends the process; the caller sees
// which cases had begun, and runs those again one by one.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"regexp"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
	_ "unsafe"

	"github.com/versity/versitygw/tests/integration"
)

type testCase struct {
	group, name string
	alone       bool // its result depends on what else exists on the server
	run         func(*integration.S3Conf) error
}

// The suite numbers its buckets from 1 in every process; we start at a number of our own.
//
//go:linkname bucketCount github.com/versity/versitygw/tests/integration.bcktCount
var bucketCount atomic.Uint64

type event struct {
	Event   string  `json:"event"` // "begin" or "end"
	Case    string  `json:"case"`
	Passed  bool    `json:"passed,omitempty"`
	Skipped bool    `json:"skipped,omitempty"`
	Message string  `json:"message,omitempty"`
	Seconds float64 `json:"seconds,omitempty"`
}

var (
	protocol     *json.Encoder // the real standard output; the suite's own prints go to a pipe
	protocolLock sync.Mutex
	skipped      sync.Map // names the suite printed as skipped
)

func emit(e event) {
	protocolLock.Lock()
	defer protocolLock.Unlock()
	if err := protocol.Encode(e); err != nil {
		os.Exit(3) // nobody listens any more
	}
}

// Redirects the suite's prints; what it calls skipped is remembered, the rest is dropped (failures come back as errors).
func captureStandardOutput() {
	protocol = json.NewEncoder(os.Stdout)
	reader, writer, err := os.Pipe()
	if err != nil {
		panic(err)
	}
	os.Stdout = writer
	go func() {
		skip := regexp.MustCompile(`SKIP \S*?(\w+)(:|$)`)
		scanner := bufio.NewScanner(reader)
		scanner.Buffer(make([]byte, 1<<20), 64<<20)
		for scanner.Scan() {
			if m := skip.FindStringSubmatch(scanner.Text()); m != nil {
				skipped.Store(m[1], true)
			}
		}
	}()
}

func runCase(c testCase, conf *integration.S3Conf, limit time.Duration) {
	emit(event{Event: "begin", Case: c.name})
	start := time.Now()
	result := make(chan error, 1)
	go func() {
		defer func() {
			if p := recover(); p != nil {
				result <- fmt.Errorf("panic: %v at %s", p, firstSuiteFrame(debug.Stack()))
			}
		}()
		result <- c.run(conf)
	}()
	var err error
	select {
	case err = <-result:
	case <-time.After(limit):
		err = fmt.Errorf("still running after %v", limit)
	}
	end := event{Event: "end", Case: c.name, Passed: err == nil, Seconds: time.Since(start).Seconds()}
	if err != nil {
		end.Message = err.Error()
	}
	if _, skip := skipped.Load(c.name); skip && err == nil {
		end.Passed, end.Skipped = false, true
	}
	emit(end)
}

var suiteFrame = regexp.MustCompile(`integration/(\w+\.go:\d+)`)

func firstSuiteFrame(stack []byte) string {
	if m := suiteFrame.FindSubmatch(stack); m != nil {
		return string(m[1])
	}
	return "an unknown place"
}

func list() {
	out := json.NewEncoder(os.Stdout)
	for _, c := range cases {
		if err := out.Encode(map[string]any{"group": c.group, "case": c.name, "alone": c.alone}); err != nil {
			os.Exit(3)
		}
	}
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == "list" {
		list()
		return
	}
	if len(os.Args) < 2 || os.Args[1] != "run" {
		fmt.Fprintln(os.Stderr, "usage: versitygw-cases list | run [flags] <names")
		os.Exit(2)
	}
	flags := flag.NewFlagSet("run", flag.ExitOnError)
	endpoint := flags.String("endpoint", "", "URL of the server")
	access := flags.String("access", "", "access key")
	secret := flags.String("secret", "", "secret key")
	region := flags.String("region", "us-east-1", "region")
	workers := flags.Int("workers", 8, "cases at a time")
	firstBucket := flags.Uint64("first-bucket", 0, "buckets are numbered from here")
	limit := flags.Duration("limit", 2*time.Minute, "time limit of a case")
	_ = flags.Parse(os.Args[2:])

	byName := map[string]testCase{}
	for _, c := range cases {
		byName[c.name] = c
	}
	captureStandardOutput()
	bucketCount.Store(*firstBucket)

	names := make(chan string)
	var group sync.WaitGroup
	for range *workers {
		group.Add(1)
		go func() {
			defer group.Done()
			// A configuration a worker: some cases change it.
			for name := range names {
				conf := integration.NewS3Conf(
					integration.WithAccess(*access), integration.WithSecret(*secret), integration.WithRegion(*region),
					integration.WithEndpoint(*endpoint), integration.WithTLSStatus(true), integration.WithVersioningEnabled())
				runCase(byName[name], conf, *limit)
			}
		}()
	}
	scanner := bufio.NewScanner(os.Stdin)
	for scanner.Scan() {
		if _, known := byName[scanner.Text()]; !known {
			fmt.Fprintf(os.Stderr, "no case named %q\n", scanner.Text())
			os.Exit(2)
		}
		names <- scanner.Text()
	}
	close(names)
	group.Wait()
}

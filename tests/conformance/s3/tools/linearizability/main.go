// Drives concurrent conditional operations on a few keys of an S3 server and checks the history for linearizability.
//
//	linearizability run --endpoint URL --access K --secret S --bucket B [flags]   runs, stores the history, checks it
//	linearizability check HISTORY.json                                            checks a stored history
//	linearizability self-test                                                     known good and bad histories, and the load against correct and faulty servers in memory
//	linearizability reference HOST:PORT LOG.json                                  a correct server, to try kills on
//
// Exit status: 0 linearizable, 1 not (or undecided, or a wrong content was read), 2 the run itself went wrong.
package main

import (
	"flag"
	"fmt"
	"os"
	"time"
)

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: linearizability run FLAGS | check HISTORY.json | self-test")
		os.Exit(2)
	}
	flags := flag.NewFlagSet(os.Args[1], flag.ExitOnError)
	limit := flags.Duration("limit", 4*time.Minute, "time limit of the check, for each key")
	o := options{}
	flags.StringVar(&o.endpoint, "endpoint", "", "URL of the server")
	flags.StringVar(&o.access, "access", "", "access key")
	flags.StringVar(&o.secret, "secret", "", "secret key")
	flags.StringVar(&o.region, "region", "us-east-1", "region")
	flags.StringVar(&o.bucket, "bucket", "", "an empty bucket")
	flags.IntVar(&o.clients, "clients", 12, "clients at a time")
	flags.IntVar(&o.keys, "keys", 5, "keys they share")
	flags.DurationVar(&o.duration, "duration", 15*time.Second, "how long to run")
	flags.IntVar(&o.operationsMax, "operations", 20000, "stop after so many operations")
	flags.BoolVar(&o.conditionalDelete, "conditional-delete", true, "also delete with If-Match")
	flags.Int64Var(&o.seed, "seed", time.Now().UnixNano(), "seed of the choice of operations")
	history := flags.String("history", "", "where to store the history")
	_ = flags.Parse(os.Args[2:])

	switch os.Args[1] {
	case "self-test":
		os.Exit(min(selfTest()+loadTest(), 1))
	case "reference":
		exitOn(serveReference(flags.Arg(0), flags.Arg(1)))
	case "check":
		operations, err := readHistory(flags.Arg(0))
		exitOn(err)
		conclude(operations, *limit, nil)
	case "run":
		operations, violations, summary, err := run(o)
		if *history != "" {
			exitOn(writeHistory(*history, operations))
		}
		exitOn(err)
		fmt.Println(summary)
		conclude(operations, *limit, violations)
	default:
		fmt.Fprintln(os.Stderr, "no such command:", os.Args[1])
		os.Exit(2)
	}
}

func conclude(history []operation, limit time.Duration, violations []string) {
	for _, violation := range violations {
		fmt.Println("VIOLATION", violation)
	}
	v := check(history, limit)
	text := v.String()
	if len(v.illegal) > 0 {
		var rest []operation
		for _, op := range history {
			if op.Kind != "list" {
				rest = append(rest, op)
			}
		}
		if check(rest, limit).linearizable() {
			text += "; linearizable without its listings"
		}
	}
	fmt.Println(text)
	if !v.linearizable() || len(violations) > 0 {
		os.Exit(1)
	}
}

func exitOn(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "linearizability:", err)
		os.Exit(2)
	}
}

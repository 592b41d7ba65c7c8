// A register store in memory that speaks just enough S3 for the load: proof that a correct server passes the whole run, and that
// a server with a fault does not.
package main

import (
	"crypto/md5"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math/rand"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"sort"
	"strings"
	"sync"
	"time"
)

type fault string

const (
	faultNone      fault = "a correct server"
	faultDrops     fault = "a correct server that sometimes drops the connection"
	faultStaleGet  fault = "a server whose reads are sometimes stale"
	faultStaleList fault = "a server whose listings are sometimes stale"
	faultLostWrite fault = "a server that sometimes forgets an acknowledged write"
	faultRace      fault = "a server that checks a condition before it takes the lock"
	faultTorn      fault = "a server that sometimes serves the blocks of another value"
)

type referenceServer struct {
	fault  fault
	lock   sync.Mutex
	now    map[string]string // path -> content
	before map[string]string // one write ago
	log    *json.Encoder     // where there is one, each write is stored in it before its answer
}

func tagOf(content string) string {
	sum := md5.Sum([]byte(content))
	return `"` + hex.EncodeToString(sum[:]) + `"`
}

func (s *referenceServer) faulty(f fault) bool { return s.fault == f && rand.Intn(40) == 0 }

// refused says how the conditions of a request fail in the present state, or 0.
func (s *referenceServer) refused(r *http.Request) int {
	content, exists := s.now[r.URL.Path]
	if want := r.Header.Get("If-Match"); want != "" {
		if !exists {
			return http.StatusNotFound
		}
		if want != tagOf(content) {
			return http.StatusPreconditionFailed
		}
	}
	switch unwanted := r.Header.Get("If-None-Match"); {
	case unwanted == "*" && exists:
		return http.StatusPreconditionFailed
	case unwanted != "" && exists && unwanted == tagOf(content):
		return http.StatusNotModified
	}
	return 0
}

func (s *referenceServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	if s.fault == faultRace && r.Method == http.MethodPut {
		s.lock.Lock()
		refused := s.refused(r)
		s.lock.Unlock()
		if refused != 0 {
			w.WriteHeader(refused)
			return
		}
		time.Sleep(time.Duration(rand.Intn(3)) * time.Millisecond)
		r.Header.Del("If-Match")
		r.Header.Del("If-None-Match")
	}
	if s.faulty(faultDrops) { // before the request takes effect, or after
		if rand.Intn(2) == 0 {
			s.serve(httptest.NewRecorder(), r, body)
		}
		panic(http.ErrAbortHandler)
	}
	s.serve(w, r, body)
}

func (s *referenceServer) serve(w http.ResponseWriter, r *http.Request, body []byte) {
	s.lock.Lock()
	defer s.lock.Unlock()
	if r.Method == http.MethodGet && r.URL.Query().Has("list-type") {
		s.list(w, r)
		return
	}
	if refused := s.refused(r); refused != 0 {
		w.WriteHeader(refused)
		return
	}
	path := r.URL.Path
	content, exists := s.now[path]
	switch r.Method {
	case http.MethodPut:
		w.Header().Set("ETag", tagOf(string(body)))
		if !s.faulty(faultLostWrite) {
			s.before[path] = content
			s.now[path] = string(body)
			s.store(path)
		}
	case http.MethodDelete:
		s.before[path] = content
		delete(s.now, path)
		s.store(path)
		w.WriteHeader(http.StatusNoContent)
	default:
		if s.faulty(faultStaleGet) && s.before[path] != "" {
			content, exists = s.before[path], true
		}
		if s.fault == faultTorn && len(content) > 4096 && rand.Intn(10) == 0 {
			content = content[:4096] + strings.Repeat("another value\n", len(content)/14)[:len(content)-4096]
		}
		if !exists {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		w.Header().Set("ETag", tagOf(content))
		_, _ = io.WriteString(w, content)
	}
}

func (s *referenceServer) list(w http.ResponseWriter, r *http.Request) {
	state := s.now
	if s.faulty(faultStaleList) {
		state = s.before
	}
	var keys []string
	for path, content := range state {
		if content != "" && strings.HasPrefix(path, r.URL.Path) {
			keys = append(keys, path)
		}
	}
	sort.Strings(keys)
	_, _ = io.WriteString(w, "<ListBucketResult><IsTruncated>false</IsTruncated>")
	for _, path := range keys {
		_, _ = fmt.Fprintf(w, "<Contents><Key>%s</Key><ETag>%s</ETag></Contents>", strings.TrimPrefix(path, r.URL.Path), tagOf(state[path]))
	}
	_, _ = io.WriteString(w, "</ListBucketResult>")
}

type logEntry struct{ Path, Content string }

func (s *referenceServer) store(path string) {
	if s.log == nil {
		return
	}
	if err := s.log.Encode(logEntry{path, s.now[path]}); err != nil {
		panic(err)
	}
}

// serveReference serves on an address and survives kill -9 by a log; buckets need not be made there, and all are one.
func serveReference(address, logPath string) error {
	s := &referenceServer{fault: faultNone, now: map[string]string{}, before: map[string]string{}}
	file, err := os.OpenFile(logPath, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	stored := json.NewDecoder(file)
	for entry := (logEntry{}); stored.Decode(&entry) == nil; entry = (logEntry{}) {
		if s.now[entry.Path] = entry.Content; entry.Content == "" {
			delete(s.now, entry.Path)
		}
	}
	if err := file.Truncate(stored.InputOffset()); err != nil { // a write that the kill cut short was not answered
		return err
	}
	s.log = json.NewEncoder(file)
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	return http.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/": // the harness waits for a listing of buckets
			_, _ = io.WriteString(w, "<ListAllMyBucketsResult></ListAllMyBucketsResult>")
		case r.Method == http.MethodPut && strings.Count(strings.Trim(r.URL.Path, "/"), "/") == 0: // a bucket, or its settings
		default:
			s.ServeHTTP(w, r)
		}
	}))
}

// loadTest runs the real load for a moment against the reference, correct and with each fault.
func loadTest() (failures int) {
	for _, f := range []fault{faultNone, faultDrops, faultStaleGet, faultStaleList, faultLostWrite, faultRace, faultTorn} {
		server := httptest.NewServer(&referenceServer{fault: f, now: map[string]string{}, before: map[string]string{}})
		history, violations, _, err := run(options{endpoint: server.URL, access: "a", secret: "s", region: "r", bucket: "b", clients: 8, keys: 3,
			operationsMax: 4000, duration: time.Minute, conditionalDelete: true, seed: 1})
		server.Close()
		v := check(history, 2*time.Minute)
		good := err == nil && v.linearizable() && len(violations) == 0
		correct := f == faultNone || f == faultDrops
		found := len(v.illegal) > 0 || len(violations) > 0
		if (correct && good) || (!correct && found) {
			fmt.Printf("PASS load against %s\n", f)
		} else {
			fmt.Printf("FAIL load against %s: %v %v %v\n", f, v, violations, err)
			failures++
		}
	}
	return failures
}

// The load: clients that choose operations at random, note what they learn, and record every call with its interval.
package main

import (
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand"
	"sync"
	"sync/atomic"
	"time"
)

type options struct {
	endpoint, access, secret, region, bucket string
	clients, keys, operationsMax             int
	duration                                 time.Duration
	conditionalDelete                        bool
	seed                                     int64
}

type recorder struct {
	start      time.Time
	lock       sync.Mutex
	operations []operation
	violations []string          // answers that no order of operations explains
	valueByTag map[string]string // ETag -> value
	tagByValue map[string]string
	statuses   map[string]int // result of each kind, for the summary
	count      atomic.Int64
}

func (r *recorder) now() int64 { return int64(time.Since(r.start)) }

func (r *recorder) add(op operation) {
	r.lock.Lock()
	defer r.lock.Unlock()
	r.operations = append(r.operations, op)
	r.statuses[op.Kind+" "+op.Result]++
	r.count.Add(1)
}

func (r *recorder) violation(format string, arguments ...any) {
	r.lock.Lock()
	defer r.lock.Unlock()
	if len(r.violations) < 20 {
		r.violations = append(r.violations, fmt.Sprintf(format, arguments...))
	}
}

// learn notes which ETag a value has. Before a write its MD5 is assumed, so that a listing can show a write whose answer was lost.
func (r *recorder) learn(value, tag string) {
	r.lock.Lock()
	defer r.lock.Unlock()
	if known, ok := r.valueByTag[tag]; ok && known != value {
		r.violations = append(r.violations, fmt.Sprintf("ETag %s names both %s and %s", tag, known, value))
	}
	r.valueByTag[tag] = value
	r.tagByValue[value] = tag
}

func (r *recorder) tagOf(value string) string {
	r.lock.Lock()
	defer r.lock.Unlock()
	return r.tagByValue[value]
}

func (r *recorder) valueOf(tag string) (string, bool) {
	r.lock.Lock()
	defer r.lock.Unlock()
	value, known := r.valueByTag[tag]
	return value, known
}

type worker struct {
	id       int
	options  options
	s3       *s3Client
	record   *recorder
	random   *rand.Rand
	lastSeen map[string]string // key -> a value this client saw there, the base of its conditions
	written  int
}

const prefix = "register/"

// run returns the history, answers that nothing explains, and a summary of outcomes.
func run(o options) ([]operation, []string, string, error) {
	r := &recorder{start: time.Now(), valueByTag: map[string]string{}, tagByValue: map[string]string{}, statuses: map[string]int{}}
	var group sync.WaitGroup
	for id := range o.clients {
		w := &worker{id: id, options: o, s3: newClient(o.endpoint, o.access, o.secret, o.region), record: r,
			random: rand.New(rand.NewSource(o.seed + int64(id))), lastSeen: map[string]string{}}
		group.Add(1)
		go func() {
			defer group.Done()
			for time.Since(r.start) < o.duration && r.count.Load() < int64(o.operationsMax) {
				w.one()
			}
		}()
	}
	group.Wait()
	// Everything is quiet: what is there now must follow from the history too.
	last := &worker{id: o.clients, options: o, s3: newClient(o.endpoint, o.access, o.secret, o.region), record: r,
		random: rand.New(rand.NewSource(o.seed)), lastSeen: map[string]string{}}
	for key := range o.keys {
		last.call("get", keyName(key))
	}
	last.listAll()
	if r.statuses["get ok"] == 0 || r.statuses["put ok"] == 0 || r.statuses["list ok"] == 0 {
		return r.operations, r.violations, "", fmt.Errorf("nothing was proved, too few operations succeeded: %v", r.statuses)
	}
	summary := fmt.Sprintf("seed %d, %.1f s; outcomes: %v", o.seed, time.Since(r.start).Seconds(), r.statuses)
	return r.operations, r.violations, summary, nil
}

func keyName(index int) string { return fmt.Sprintf("%skey-%d", prefix, index) }

func (w *worker) one() {
	key := keyName(w.random.Intn(w.options.keys))
	switch choice := w.random.Intn(100); {
	case choice < 12:
		w.call("put", key)
	case choice < 22:
		w.call("put_if_absent", key)
	case choice < 42:
		w.call("put_if_match", key)
	case choice < 62:
		w.call("get", key)
	case choice < 68:
		w.call("get_if_match", key)
	case choice < 76:
		w.call("get_if_none_match", key)
	case choice < 84:
		w.call("delete", key)
	case choice < 90:
		if w.options.conditionalDelete {
			w.call("delete_if_match", key)
		}
	default:
		w.listAll()
	}
}

// call does one operation on one key and records it.
func (w *worker) call(kind, key string) {
	op := operation{Client: w.id, Key: key, Kind: kind}
	headers := map[string]string{}
	method := "GET"
	var body []byte
	switch kind {
	case "put", "put_if_absent", "put_if_match":
		method = "PUT"
		w.written++
		op.Value = fmt.Sprintf("value-%d-%d-%d", w.options.seed, w.id, w.written)
		body = content(op.Value, sizeOf(op.Value))
		sum := md5.Sum(body)
		w.record.learn(op.Value, hex.EncodeToString(sum[:]))
	case "delete", "delete_if_match":
		method = "DELETE"
	}
	switch kind {
	case "put_if_absent":
		headers["If-None-Match"] = "*"
	case "put_if_match", "get_if_match", "delete_if_match", "get_if_none_match":
		op.Expect = w.lastSeen[key]
		if op.Expect == "" {
			return // nothing to name yet
		}
		name := "If-Match"
		if kind == "get_if_none_match" {
			name = "If-None-Match"
		}
		headers[name] = `"` + w.record.tagOf(op.Expect) + `"`
	}
	op.Call = w.record.now()
	got, err := w.s3.do(method, "/"+w.options.bucket+"/"+key, nil, headers, body)
	op.Return = w.record.now()
	if err != nil {
		w.unanswered(op, err)
		return
	}
	switch {
	case got.status == 200 && method == "GET":
		value, wrong := valueOf(got.body)
		if wrong != nil {
			w.record.violation("%s %s: %v", kind, key, wrong)
			return
		}
		op.Result, op.Observed = resultOK, value
		w.record.learn(value, got.etag)
		w.lastSeen[key] = value
	case got.status == 200 && method == "PUT":
		op.Result = resultOK
		w.record.learn(op.Value, got.etag)
		w.lastSeen[key] = op.Value
	case (got.status == 204 || got.status == 200) && method == "DELETE":
		op.Result = resultOK
	case got.status == 304:
		op.Result = resultNotModified
	case got.status == 412:
		op.Result = resultFailed
	case got.status == 404 && kind != "put" && kind != "put_if_absent" && kind != "delete":
		op.Result = resultMissing
	case got.status == 409 && method != "GET":
		return // a conflict: it did not happen, and says nothing about the state
	case got.status >= 500:
		op.Result = resultUnknown
	default:
		w.record.violation("%s %s: unexpected answer %d: %.200s", kind, key, got.status, got.body)
		return
	}
	w.record.add(op)
}

func (w *worker) listAll() {
	call := w.record.now()
	etags, status, err := w.s3.list(w.options.bucket, prefix)
	end := w.record.now()
	if err != nil {
		w.unanswered(operation{Kind: "list"}, err)
		return
	}
	if status != 200 {
		if status < 500 {
			w.record.violation("list: unexpected answer %d", status)
		}
		return
	}
	for index := range w.options.keys {
		op := operation{Client: w.id, Key: keyName(index), Kind: "list", Result: resultMissing, Call: call, Return: end}
		if tag, present := etags[op.Key]; present {
			value, known := w.record.valueOf(tag)
			if !known {
				w.record.violation("list shows %s with ETag %s, which nobody wrote", op.Key, tag)
				continue
			}
			op.Result, op.Observed = resultOK, value
			w.lastSeen[op.Key] = value
			delete(etags, op.Key)
		}
		w.record.add(op)
	}
	for key := range etags {
		w.record.violation("list shows key %s, which nobody wrote", key)
	}
}

// unanswered records a write that may have happened; a read without an answer says nothing.
func (w *worker) unanswered(op operation, err error) {
	if errors.Is(err, errNotSent) {
		time.Sleep(50 * time.Millisecond)
		return
	}
	if isWrite(op.Kind) {
		op.Result = resultUnknown
		w.record.add(op)
	}
}

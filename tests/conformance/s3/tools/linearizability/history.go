// What a run leaves behind: operations on single keys, each with the interval in which it took effect. Read by check.go.
package main

import (
	"encoding/json"
	"os"
)

// An operation as one client saw it. A listing is stored as one operation for each key it covers.
type operation struct {
	Client   int    `json:"client"`
	Key      string `json:"key"`
	Kind     string `json:"op"`                 // put, put_if_absent, put_if_match, get, get_if_match, get_if_none_match, delete, delete_if_match, list
	Value    string `json:"value,omitempty"`    // what a put writes; unique in a run
	Expect   string `json:"expect,omitempty"`   // the value whose ETag a condition names
	Result   string `json:"result"`             // see below
	Observed string `json:"observed,omitempty"` // the value a get returned, or whose ETag a listing showed; "" is absent
	Call     int64  `json:"call"`               // nanoseconds on one monotonic clock
	Return   int64  `json:"return"`             // meaningless when the result is "unknown"
}

const (
	resultOK          = "ok"
	resultFailed      = "failed"       // 412
	resultMissing     = "missing"      // 404
	resultNotModified = "not_modified" // 304
	resultUnknown     = "unknown"      // it may have happened, or may still happen
)

func isWrite(kind string) bool {
	switch kind {
	case "put", "put_if_absent", "put_if_match", "delete", "delete_if_match":
		return true
	}
	return false
}

func readHistory(path string) ([]operation, error) {
	bytes, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var history []operation
	return history, json.Unmarshal(bytes, &history)
}

func writeHistory(path string, history []operation) error {
	bytes, err := json.Marshal(history)
	if err != nil {
		return err
	}
	return os.WriteFile(path, bytes, 0o644)
}

// Histories whose verdict is known: the checker is worth nothing unless it rejects the bad ones.
package main

import (
	"fmt"
	"time"
)

func op(kind, value, expect, result, observed string, call, end int64) operation {
	return operation{Key: "k", Kind: kind, Value: value, Expect: expect, Result: result, Observed: observed, Call: call, Return: end}
}

func selfTest() (failures int) {
	tests := []struct {
		name    string
		good    bool
		history []operation
	}{
		{"sequential history", true, []operation{
			op("put", "a", "", "ok", "", 0, 1), op("get", "", "", "ok", "a", 2, 3),
			op("put_if_match", "b", "a", "ok", "", 4, 5), op("list", "", "", "ok", "b", 6, 7),
			op("delete", "", "", "ok", "", 8, 9), op("get", "", "", "missing", "", 10, 11), op("put_if_absent", "c", "", "ok", "", 12, 13)}},
		{"concurrent read may see either value", true, []operation{
			op("put", "a", "", "ok", "", 0, 1), op("put", "b", "", "ok", "", 2, 9), op("get", "", "", "ok", "a", 3, 4), op("get", "", "", "ok", "b", 5, 6)}},
		{"stale read", false, []operation{
			op("put", "a", "", "ok", "", 0, 1), op("put", "b", "", "ok", "", 2, 3), op("get", "", "", "ok", "a", 4, 5)}},
		{"read goes back in time", false, []operation{
			op("put", "a", "", "ok", "", 0, 1), op("put", "b", "", "ok", "", 2, 9), op("get", "", "", "ok", "b", 3, 4), op("get", "", "", "ok", "a", 5, 6)}},
		{"stale listing: acknowledged key missing", false, []operation{
			op("put", "a", "", "ok", "", 0, 1), op("list", "", "", "missing", "", 2, 3)}},
		{"stale listing: deleted key shown", false, []operation{
			op("put", "a", "", "ok", "", 0, 1), op("delete", "", "", "ok", "", 2, 3), op("list", "", "", "ok", "a", 4, 5)}},
		{"lost update: two conditional puts on one value succeed", false, []operation{
			op("put", "a", "", "ok", "", 0, 1), op("put_if_match", "b", "a", "ok", "", 2, 9), op("put_if_match", "c", "a", "ok", "", 3, 8)}},
		{"two creations succeed", false, []operation{
			op("put_if_absent", "a", "", "ok", "", 0, 9), op("put_if_absent", "b", "", "ok", "", 1, 8)}},
		{"condition refused although it held", false, []operation{
			op("put", "a", "", "ok", "", 0, 1), op("put_if_match", "b", "a", "failed", "", 2, 3)}},
		{"conditional delete took a newer value", false, []operation{
			op("put", "a", "", "ok", "", 0, 1), op("put", "b", "", "ok", "", 2, 3), op("delete_if_match", "", "a", "ok", "", 4, 5)}},
		{"not modified although it was", false, []operation{
			op("put", "a", "", "ok", "", 0, 1), op("put", "b", "", "ok", "", 2, 3), op("get_if_none_match", "", "a", "not_modified", "", 4, 5)}},
		{"unknown put seen later", true, []operation{
			op("put", "a", "", "ok", "", 0, 1), op("put", "b", "", "unknown", "", 2, 0), op("get", "", "", "ok", "a", 4, 5), op("get", "", "", "ok", "b", 6, 7)}},
		{"unknown put never seen", true, []operation{
			op("put", "a", "", "ok", "", 0, 1), op("put", "b", "", "unknown", "", 2, 0), op("get", "", "", "ok", "a", 4, 5)}},
		{"unknown put seen, then gone", false, []operation{
			op("put", "a", "", "ok", "", 0, 1), op("put", "b", "", "unknown", "", 2, 0), op("get", "", "", "ok", "b", 4, 5), op("get", "", "", "ok", "a", 6, 7)}},
		{"acknowledged put lost in a crash", false, []operation{
			op("put", "a", "", "ok", "", 0, 1), op("put", "b", "", "ok", "", 2, 3), op("put", "c", "", "unknown", "", 4, 0), op("get", "", "", "ok", "a", 6, 7)}},
	}
	for _, test := range tests {
		verdict := check(test.history, time.Minute)
		if len(verdict.undecided) > 0 || verdict.linearizable() != test.good {
			fmt.Printf("FAIL %s: %v\n", test.name, verdict)
			failures++
		} else {
			fmt.Printf("PASS %s\n", test.name)
		}
	}
	return failures
}

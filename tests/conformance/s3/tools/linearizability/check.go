// Checks a history with Porcupine: each key is a register that holds one value or none.
package main

import (
	"fmt"
	"math"
	"sort"
	"sync"
	"time"

	"github.com/anishathalye/porcupine"
)

const absent = "" // the state of a key that does not exist

// step says whether `op` may happen in `state`, and what the key holds afterwards.
func step(state string, op operation) (bool, string) {
	if op.Result == resultUnknown {
		return true, effect(state, op)
	}
	switch op.Kind {
	case "put", "delete":
		return op.Result == resultOK, effect(state, op)
	case "put_if_absent":
		if op.Result == resultOK {
			return state == absent, op.Value
		}
		return op.Result == resultFailed && state != absent, state
	case "put_if_match":
		switch op.Result {
		case resultOK:
			return state == op.Expect, op.Value
		case resultFailed:
			return state != op.Expect, state // an absent key may be answered either way
		default:
			return op.Result == resultMissing && state == absent, state
		}
	case "delete_if_match": // AWS answers success also when the key does not exist
		switch op.Result {
		case resultOK:
			return state == op.Expect || state == absent, absent
		case resultFailed:
			return state != op.Expect, state
		default:
			return op.Result == resultMissing && state == absent, state
		}
	case "get", "list":
		if op.Result == resultMissing {
			return state == absent, state
		}
		return op.Result == resultOK && op.Observed != absent && state == op.Observed, state
	case "get_if_match":
		switch op.Result {
		case resultOK:
			return state == op.Expect && state == op.Observed, state
		case resultFailed:
			return state != absent && state != op.Expect, state
		default:
			return op.Result == resultMissing && state == absent, state
		}
	case "get_if_none_match":
		switch op.Result {
		case resultOK:
			return state != absent && state != op.Expect && state == op.Observed, state
		case resultNotModified:
			return state == op.Expect, state
		default:
			return op.Result == resultMissing && state == absent, state
		}
	}
	return false, state
}

// effect is what a write does when it takes place in `state`.
func effect(state string, op operation) string {
	switch op.Kind {
	case "put":
		return op.Value
	case "delete":
		return absent
	case "put_if_absent":
		if state == absent {
			return op.Value
		}
	case "put_if_match":
		if state == op.Expect {
			return op.Value
		}
	case "delete_if_match":
		if state == op.Expect {
			return absent
		}
	}
	return state
}

var register = porcupine.Model{
	Init:  func() any { return absent },
	Step:  func(state, input, _ any) (bool, any) { return stepAny(state.(string), input.(operation)) },
	Equal: func(a, b any) bool { return a == b },
}

func stepAny(state string, op operation) (bool, any) { return step(state, op) }

type verdict struct {
	operations, keys, unknown int
	illegal, undecided        []string // keys
}

func (v verdict) linearizable() bool { return len(v.illegal) == 0 && len(v.undecided) == 0 }

func (v verdict) String() string {
	word := "linearizable"
	if len(v.undecided) > 0 {
		word = fmt.Sprintf("UNDECIDED for keys %v (time limit)", v.undecided)
	}
	if len(v.illegal) > 0 {
		word = fmt.Sprintf("NOT linearizable: keys %v", v.illegal)
	}
	return fmt.Sprintf("%d operations on %d keys, %d with unknown outcome: %s", v.operations, v.keys, v.unknown, word)
}

// check decides each key on its own (linearizability is local). Writes of unknown outcome stay open until after everything else;
// reads of unknown outcome say nothing and are left out.
func check(history []operation, limit time.Duration) verdict {
	result := verdict{}
	byKey := map[string][]porcupine.Operation{}
	for _, op := range history {
		end := op.Return
		if op.Result == resultUnknown {
			if !isWrite(op.Kind) {
				continue
			}
			end = math.MaxInt64
			result.unknown++
		}
		result.operations++
		byKey[op.Key] = append(byKey[op.Key], porcupine.Operation{ClientId: op.Client, Input: op, Call: op.Call, Return: end})
	}
	result.keys = len(byKey)
	var group sync.WaitGroup
	var lock sync.Mutex
	for key, operations := range byKey {
		group.Go(func() {
			outcome := porcupine.CheckOperationsTimeout(register, operations, limit)
			lock.Lock()
			defer lock.Unlock()
			switch outcome {
			case porcupine.Illegal:
				result.illegal = append(result.illegal, key)
			case porcupine.Unknown:
				result.undecided = append(result.undecided, key)
			}
		})
	}
	group.Wait()
	sort.Strings(result.illegal)
	sort.Strings(result.undecided)
	return result
}

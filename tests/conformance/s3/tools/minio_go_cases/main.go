// Runs one of minio-go's functional tests by name: `minio-go-cases NAME`. `minio-go-cases list` prints "KIND NAME" a line, where
// KIND is core, tls (server-side encryption with client keys, wants TLS) or kms (server-side encryption).
package main

import (
	"fmt"
	"log/slog"
	"os"
)

type testCase struct {
	name, kind string
	run        func()
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: minio-go-cases list | NAME")
		os.Exit(2)
	}
	if os.Args[1] == "list" {
		for _, c := range cases {
			fmt.Println(c.kind, c.name)
		}
		return
	}
	slog.SetDefault(slog.New(slog.NewJSONHandler(os.Stdout, nil)))
	for _, c := range cases {
		if c.name == os.Args[1] {
			c.run() // panics when it fails
			return
		}
	}
	fmt.Fprintln(os.Stderr, "no such test:", os.Args[1])
	os.Exit(2)
}

// Run runs Complement against vatra.
//
//	run                       every test, each with servers of its own
//	run -run TestName         these tests (a regular expression, as go test's -run)
//	run -packages tests/csapi one package; commas separate more
//	run -quick                servers are shared by the tests of a package
//	run -check                every test, and those of expected.txt that fail a second time
//	run -add                  as without, and adds what passes to expected.txt
//
// Without -run and -quick it records: results.jsonl, and the table in README.md. It needs root, Go, iproute2 and
// openssl. Code 0: all that had to pass passed; 1: something did not; 2: a fault; 3: the suite's source is not to be had
// here, so that nothing was tested. See README.md.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"complement-tests/internal/sandbox"
)

// options are the flags.
type options struct {
	home     string // complement-tests/
	binary   string
	module   string
	patterns []string
	cache    string
	packages []string
	pattern  string
	timeout  time.Duration
	limit    time.Duration // 0 is none
	quick    bool
	check    bool
	add      bool
	verbose  bool
}

func main() {
	sandbox.Main()
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer cancel()
	code, err := run(ctx, parse(), os.Stdout)
	if ctx.Err() != nil {
		fmt.Fprintln(os.Stderr, "complement: interrupted; everything that ran has been ended")
		code = 130
	} else if err != nil {
		fmt.Fprintf(os.Stderr, "complement: %v\n", err)
		code = max(code, 2)
	}
	os.Exit(code)
}

func parse() options {
	var o options
	target := os.Getenv("CARGO_TARGET_DIR")
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	if target == "" {
		target = filepath.Join(cache, "vatra", "target")
	}
	flag.StringVar(&o.home, "home", ".", "the folder complement-tests")
	flag.StringVar(&o.binary, "binary", filepath.Join(target, "debug", "vatra"), "the server to test")
	flag.StringVar(&o.module, "module", "", "the Go module that knows the tests (default: suite, in home)")
	patterns := flag.String("tests", "github.com/matrix-org/complement/tests/...", "the packages of tests")
	flag.StringVar(&o.cache, "cache", filepath.Join(cache, "vatra", "complement"), "for compiled tests and logs")
	packages := flag.String("packages", "", "only these packages, as named in results.jsonl, separated by commas")
	flag.StringVar(&o.pattern, "run", "", "only tests that match this regular expression")
	flag.DurationVar(&o.timeout, "timeout", 10*time.Minute, "for each package; the test that runs then has failed, and the others run on")
	flag.DurationVar(&o.limit, "limit", 0, "for the whole; 0 is none (-check: 25m)")
	flag.BoolVar(&o.quick, "quick", false, "share servers among the tests of a package")
	flag.BoolVar(&o.check, "check", false, "run every test, those of expected.txt that fail again, and fail if one of these fails twice")
	flag.BoolVar(&o.add, "add", false, "add what passes to expected.txt")
	flag.BoolVar(&o.verbose, "v", false, "show what the tests print")
	flag.Parse()
	if flag.NArg() > 0 || o.check && (o.pattern != "" || o.quick || o.add) || o.add && o.quick {
		flag.Usage()
		os.Exit(2)
	}
	if o.check && o.limit == 0 {
		o.limit = 25 * time.Minute
	}
	o.patterns = strings.Fields(*patterns)
	if *packages != "" {
		o.packages = strings.Split(*packages, ",")
	}
	if o.module == "" {
		o.module = filepath.Join(o.home, "suite")
	}
	return o
}

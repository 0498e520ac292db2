package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"complement-tests/internal/suite"
)

// noSuite is the code that says that nothing was tested because there is no suite.
const noSuite = 3

// runner is one run: the packages, where they run, and what they print.
type runner struct {
	options
	stage    *stage
	packages []suite.Package // shadows the names in options
	out      io.Writer
	logs     string
	runs     int // counts processes, to name their files
}

// run does what the options say. The code is 0 if all that had to pass passed.
func run(ctx context.Context, o options, out io.Writer) (code int, err error) {
	packages, err := suite.Build(ctx, o.module, o.patterns, filepath.Join(o.cache, "tests"))
	if err != nil {
		return noSuite, fmt.Errorf("the suite cannot be compiled, so nothing was tested: %w", err)
	}
	if packages, err = chosen(packages, o.packages); err != nil {
		return 2, err
	}
	expected, err := suite.ReadExpected(filepath.Join(o.home, "expected.txt"))
	if err != nil {
		return 2, err
	}
	logs := filepath.Join(o.cache, "logs")
	if err := os.MkdirAll(logs, 0o755); err != nil {
		return 2, err
	}
	if logs, err = os.MkdirTemp(logs, time.Now().UTC().Format("20060102-150405-")); err != nil {
		return 2, err
	}
	stage, err := newStage(o)
	if err != nil {
		return 2, err
	}
	defer func() {
		if fault := stage.close(); fault != nil {
			err = errors.Join(err, fmt.Errorf("cleaning up: %w", fault))
		}
	}()
	r := &runner{options: o, stage: stage, packages: packages, out: out, logs: logs}
	if o.check {
		return r.checkExpected(ctx, expected)
	}
	return r.all(ctx, expected)
}

// chosen picks packages by name; none named picks all.
func chosen(packages []suite.Package, names []string) ([]suite.Package, error) {
	if len(names) == 0 {
		return packages, nil
	}
	var list []suite.Package
	for _, name := range names {
		at := slices.IndexFunc(packages, func(pkg suite.Package) bool { return pkg.Name == name })
		if at < 0 {
			return nil, fmt.Errorf("no package of tests is called %s", name)
		}
		list = append(list, packages[at])
	}
	return list, nil
}

// all runs the packages one after the other, and records if what ran was whole.
func (r *runner) all(ctx context.Context, expected *suite.Expected) (int, error) {
	began := time.Now()
	results := suite.Results{}
	var names []string
	var faults []error
	for _, pkg := range r.packages {
		these, err := r.one(ctx, pkg, r.pattern)
		if ctx.Err() != nil {
			return 2, ctx.Err()
		}
		if err != nil {
			faults = append(faults, err)
			continue
		}
		names = append(names, pkg.Name)
		results.Replace(nil, these)
	}
	took := time.Since(began).Round(time.Second)
	fmt.Fprintf(r.out, "\n%s\n%v on %d cores. What the tests printed: %s\n", suite.Table(results), took, runtime.NumCPU(), r.logs)
	var failing []suite.Test
	if r.pattern == "" {
		failing = expected.Failing(results, names)
		r.list("Expected to pass, and did not:", failing)
	}
	news := expected.News(results)
	r.list("Passed and not in expected.txt:", news)
	if r.add {
		faults = append(faults, expected.Add(news))
	}
	if r.pattern == "" && !r.quick {
		faults = append(faults, r.record(results, names, took))
	}
	passed, failed := count(results)
	fmt.Fprintf(r.out, "%d passed, %d failed\n", passed, failed)
	if err := errors.Join(faults...); err != nil {
		return 2, err
	}
	// One who asks for a test wants to know of that test; the whole suite is held against the list.
	if len(failing) > 0 || r.pattern != "" && failed > 0 {
		return 1, nil
	}
	return 0, nil
}

// count counts tests without subtests. One that skipped itself is neither.
func count(results suite.Results) (passed, failed int) {
	for test, outcome := range results {
		if test.IsTop() && outcome == suite.Pass {
			passed++
		} else if test.IsTop() && outcome == suite.Fail {
			failed++
		}
	}
	return passed, failed
}

// one runs one package, and says how each test ended.
func (r *runner) one(ctx context.Context, pkg suite.Package, pattern string) (suite.Results, error) {
	r.runs++
	name := fmt.Sprintf("%02d-%s", r.runs, strings.ReplaceAll(pkg.Name, "/", "-"))
	dir := filepath.Join(r.stage.dir, name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	file, err := os.Create(filepath.Join(r.logs, name+".log"))
	if err != nil {
		return nil, err
	}
	defer file.Close()
	log := io.Writer(file)
	if r.verbose {
		log = io.MultiWriter(file, r.out)
	}
	var failed []string // subtests of the test that is running
	return suite.Run{
		Env: r.stage.env(r.quick), Dir: dir, Pattern: pattern, Timeout: r.timeout, Log: log,
		Ended: func(test suite.Test, outcome suite.Outcome, took time.Duration) {
			if !test.IsTop() {
				if outcome == suite.Fail {
					failed = append(failed, test.Name)
				}
				return
			}
			fmt.Fprintf(r.out, "%-4s %s (%.1f s)\n", outcome, test, took.Seconds())
			for _, name := range failed {
				if strings.HasPrefix(name, test.Name+"/") {
					fmt.Fprintf(r.out, "       %s\n", name)
				}
			}
			failed = nil
		},
	}.Package(ctx, pkg)
}

// record writes results.jsonl and the table in the README. The time is told of a run of all packages only.
func (r *runner) record(results suite.Results, names []string, took time.Duration) error {
	file := filepath.Join(r.home, "results.jsonl")
	recorded, err := suite.ReadResults(file)
	if err != nil {
		return err
	}
	recorded.Replace(names, results)
	if err := recorded.Write(file); err != nil {
		return err
	}
	text := suite.Table(recorded)
	if len(r.options.packages) == 0 {
		text += fmt.Sprintf("\nThe last run of all packages took %v on %d cores, with servers of its own for each test.\n", took, runtime.NumCPU())
	}
	return suite.WriteTable(filepath.Join(r.home, "README.md"), text)
}

func (r *runner) list(title string, tests []suite.Test) {
	if len(tests) == 0 {
		return
	}
	fmt.Fprintln(r.out, title)
	for _, test := range tests {
		fmt.Fprintf(r.out, "  %s\n", test)
	}
	fmt.Fprintln(r.out)
}

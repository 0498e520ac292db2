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

	"complement-tests/internal/scratch"
	"complement-tests/internal/suite"
)

// noSuite is the code that says that nothing was tested because the suite's source is not to be had here. Whatever else
// keeps tests from running is an error: 2.
const noSuite = 3

// keptLogs is how many runs' logs stay in the cache.
const keptLogs = 30

// runner is one run: the packages, where they run, and what they print.
type runner struct {
	options
	stage    *stage
	asked    suite.Selection
	deadline time.Time       // zero is never
	packages []suite.Package // shadows the names in options
	out      io.Writer
	logs     string
	runs     int // counts processes, to name their files
}

// run does what the options say. The code is 0 if all that had to pass passed.
func run(ctx context.Context, o options, out io.Writer) (code int, err error) {
	r := &runner{options: o, out: out}
	if o.limit > 0 {
		r.deadline = time.Now().Add(o.limit)
	}
	if err := requirements(); err != nil {
		return 2, err
	}
	if r.asked, err = suite.ParseSelection(o.pattern); err != nil {
		return 2, err
	}
	packages, release, err := suite.Build(ctx, o.module, o.patterns, filepath.Join(o.cache, "tests"))
	var unfetched *suite.Unfetched
	if errors.As(err, &unfetched) {
		return noSuite, fmt.Errorf("NOT RUN, 0 tests: %w", err)
	}
	if err != nil {
		return 2, fmt.Errorf("the suite cannot be compiled, so nothing was tested: %w", err)
	}
	defer release()
	if r.packages, err = chosen(packages, o.packages); err != nil {
		return 2, err
	}
	expected, err := suite.ReadExpected(filepath.Join(o.home, "expected.txt"))
	if err != nil {
		return 2, err
	}
	var releaseLogs func()
	if r.logs, releaseLogs, err = newLogs(o.cache); err != nil {
		return 2, err
	}
	defer releaseLogs()
	if r.stage, err = newStage(o); err != nil {
		return 2, err
	}
	defer func() {
		if fault := r.stage.close(); fault != nil {
			err = errors.Join(err, fmt.Errorf("cleaning up: %w", fault))
		}
	}()
	if o.check {
		return r.checkExpected(ctx, expected)
	}
	return r.all(ctx, expected)
}

// newLogs makes the folder for what this run's tests print, and removes those of runs long over.
func newLogs(cache string) (dir string, release func(), err error) {
	base := filepath.Join(cache, "logs")
	if err := os.MkdirAll(base, 0o755); err != nil {
		return "", nil, err
	}
	if dir, err = os.MkdirTemp(base, time.Now().UTC().Format("20060102-150405-")); err != nil {
		return "", nil, err
	}
	if release, err = scratch.Hold(dir); err != nil {
		return "", nil, err
	}
	if err := scratch.Prune(base, keptLogs); err != nil {
		release()
		return "", nil, err
	}
	return dir, release, nil
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

// everything runs the packages one after the other. It tells which of them ran whole, and what was wrong with the others.
func (r *runner) everything(ctx context.Context) (results suite.Results, whole []string, faults []error) {
	results = suite.Results{}
	for _, pkg := range r.packages {
		these, err := r.one(ctx, pkg, r.asked)
		results.Replace(nil, these)
		if err != nil {
			faults = append(faults, err)
		} else {
			whole = append(whole, pkg.Name)
		}
		if ctx.Err() != nil {
			break
		}
	}
	return results, whole, faults
}

// all runs what is asked for, and records if what ran was whole.
func (r *runner) all(ctx context.Context, expected *suite.Expected) (int, error) {
	began := time.Now()
	results, whole, faults := r.everything(ctx)
	if ctx.Err() != nil {
		return 2, ctx.Err()
	}
	results = r.asked.Of(results)
	if len(results) == 0 && len(faults) == 0 {
		return 2, fmt.Errorf("no test is called %s, so nothing was tested", r.asked)
	}
	took := time.Since(began).Round(time.Second)
	fmt.Fprintf(r.out, "\n%s\n%v on %d cores. What the tests printed: %s\n", suite.Table(results), took, runtime.NumCPU(), r.logs)
	var failing []suite.Test
	if r.asked.All() {
		failing = expected.Failing(results, r.names())
		r.list("Expected to pass, and did not:", failing)
	}
	news := expected.News(results)
	r.list("Passed and not in expected.txt:", news)
	if r.add {
		faults = append(faults, expected.Add(news))
	}
	if r.asked.All() && !r.quick {
		faults = append(faults, r.record(results, whole, took))
	}
	passed, failed := count(results)
	fmt.Fprintf(r.out, "%d passed, %d failed\n", passed, failed)
	if err := errors.Join(faults...); err != nil {
		return 2, err
	}
	// One who asks for a test wants to know of that test; the whole suite is held against the list.
	if len(failing) > 0 || !r.asked.All() && failed > 0 {
		return 1, nil
	}
	return 0, nil
}

// count counts tests without their parts: where subtests were asked for, these. One that skipped itself is neither.
func count(results suite.Results) (passed, failed int) {
	for test, outcome := range results {
		if !test.IsTop() && hasParent(results, test) {
			continue
		}
		switch outcome {
		case suite.Pass:
			passed++
		case suite.Fail:
			failed++
		}
	}
	return passed, failed
}

func hasParent(results suite.Results, test suite.Test) bool {
	for at, c := range test.Name {
		if c != '/' {
			continue
		}
		if _, there := results[suite.Test{Package: test.Package, Name: test.Name[:at]}]; there {
			return true
		}
	}
	return false
}

// one runs one package, and says how each test ended.
func (r *runner) one(ctx context.Context, pkg suite.Package, asked suite.Selection) (suite.Results, error) {
	r.runs++
	name := fmt.Sprintf("%02d-%s", r.runs, strings.ReplaceAll(pkg.Name, "/", "-"))
	dir := filepath.Join(r.stage.dir.Path, name)
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
		Env: r.stage.env(r.quick), Dir: dir, Asked: asked, Timeout: r.timeout, Deadline: r.deadline, Log: log,
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

// record writes results.jsonl and the table in the README, of the packages that ran whole. The time is told of a run of
// all packages, and stays until the next such run.
func (r *runner) record(results suite.Results, whole []string, took time.Duration) error {
	file := filepath.Join(r.home, "results.jsonl")
	recorded, err := suite.ReadResults(file)
	if err != nil {
		return err
	}
	recorded.Replace(whole, results.In(whole))
	if err := recorded.Write(file); err != nil {
		return err
	}
	readme := filepath.Join(r.home, "README.md")
	told, err := suite.ReadTable(readme)
	if err != nil {
		return err
	}
	line := ""
	for each := range strings.Lines(told) {
		if strings.HasPrefix(each, timeTold) {
			line = each
		}
	}
	if len(r.options.packages) == 0 && len(whole) == len(r.packages) {
		line = fmt.Sprintf("%s %v on %d cores, with servers of its own for each test.\n", timeTold, took, runtime.NumCPU())
	}
	if line != "" {
		line = "\n" + line
	}
	return suite.WriteTable(readme, suite.Table(recorded)+line)
}

const timeTold = "The last run of all packages took"

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

package suite

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// Run says how to run a package.
type Run struct {
	// Env is the whole environment of the tests.
	Env []string
	// Dir is where they run. It should be empty, and is also where their temporary files go.
	Dir string
	// Asked is what is to run.
	Asked Selection
	// Timeout is for each process; the test that runs when it is over has failed, and a further process runs the others.
	Timeout time.Duration
	// Deadline is when the last process ends; zero is never.
	Deadline time.Time
	// Log takes what the tests print.
	Log io.Writer
	// Ended is told about each test as it ends; it may be nil.
	Ended func(test Test, outcome Outcome, took time.Duration)
}

// maxAborts bounds how often a package is continued behind a test that ended the whole process.
const maxAborts = 25

// grace is how long a process may take to end by itself once its time is over.
const grace = 30 * time.Second

// Package runs a package's tests. A test that ends the whole process (a panic, the timeout) has failed; the tests
// behind it are run by a further process, so that one test's fall hides no other's outcome. There are results also
// with an error: it says that the package as a whole is not to be trusted.
func (r Run) Package(ctx context.Context, pkg Package) (Results, error) {
	results := Results{}
	var faults []error
	pattern := r.Asked.String()
	for range maxAborts {
		end, err := r.once(ctx, pkg, pattern, results)
		if err != nil {
			return results, errors.Join(append(faults, err)...)
		}
		if end.fault != nil {
			faults = append(faults, end.fault)
		}
		if end.whole {
			if len(results) == 0 && r.Asked.All() {
				faults = append(faults, fmt.Errorf("%s: it ran no test", pkg.Name))
			}
			return results, errors.Join(faults...)
		}
		rest, err := r.rest(ctx, pkg, results)
		if err != nil || len(rest) == 0 {
			return results, errors.Join(append(faults, err)...)
		}
		fmt.Fprintf(r.Log, "\n=== the tests were cut off; %d are still to run\n", len(rest))
		pattern = Pattern(rest)
	}
	return results, errors.Join(append(faults, fmt.Errorf("%s: cut off %d times", pkg.Name, maxAborts))...)
}

// ending is how a process of tests ended: whole, if it came to its end, and the fault if no test explains its code.
type ending struct {
	whole bool
	fault error
}

// seen is what the tests of one process did.
type seen struct {
	open   map[Test]bool // began and did not end
	ran    bool
	failed bool
}

// judge says what an exit code means. Code 1 is go test's for failed tests; a panic and the timeout end with 2.
func (s seen) judge(pkg Package, code int) (ending, error) {
	switch {
	case code != 0 && !s.ran:
		return ending{}, fmt.Errorf("%s: the tests do not start (code %d); their output is in the log", pkg.Name, code)
	case len(s.open) > 0:
		return ending{}, nil
	case code == 0 || code == 1 && s.failed:
		return ending{whole: true}, nil
	}
	return ending{fault: fmt.Errorf("%s: its process ended with code %d when no test was running", pkg.Name, code)}, nil
}

// event is a line of test2json.
type event struct {
	Action  string
	Test    string
	Elapsed float64
	Output  string
}

// once runs one process and adds to the results.
func (r Run) once(parent context.Context, pkg Package, pattern string, results Results) (end ending, err error) {
	timeout := r.Timeout
	if !r.Deadline.IsZero() {
		timeout = min(timeout, time.Until(r.Deadline))
	}
	if timeout <= 0 {
		return end, fmt.Errorf("%s: no time is left for its tests", pkg.Name)
	}
	ctx, cancel := context.WithTimeout(parent, timeout+grace)
	defer cancel()
	process := r.command(ctx, pkg, "-test.v=test2json", "-test.paniconexit0", "-test.timeout="+timeout.String(), "-test.run="+pattern)
	reader, writer, err := os.Pipe()
	if err != nil {
		return end, err
	}
	defer reader.Close()
	process.Stdout, process.Stderr = writer, writer
	convert := exec.Command("go", "tool", "test2json", "-t")
	convert.Stdin = reader
	events, err := convert.StdoutPipe()
	if err != nil {
		writer.Close()
		return end, err
	}
	if err := convert.Start(); err != nil {
		writer.Close()
		return end, err
	}
	err = process.Start()
	writer.Close()
	if err != nil {
		return end, errors.Join(err, convert.Wait())
	}
	tests, readErr := r.read(pkg, events, results)
	processErr := process.Wait()
	if err := errors.Join(readErr, convert.Wait(), parent.Err()); err != nil {
		return end, err
	}
	for test := range tests.open {
		r.ended(test, Fail, 0, results)
	}
	var exit *exec.ExitError
	if processErr != nil && !errors.As(processErr, &exit) {
		return end, processErr
	}
	return tests.judge(pkg, process.ProcessState.ExitCode())
}

func (r Run) ended(test Test, outcome Outcome, took time.Duration, results Results) {
	results[test] = outcome
	if r.Ended != nil {
		r.Ended(test, outcome, took)
	}
}

// read follows the events of one process.
func (r Run) read(pkg Package, from io.Reader, results Results) (seen, error) {
	tests := seen{open: map[Test]bool{}}
	lines := bufio.NewReader(from)
	for {
		line, err := lines.ReadBytes('\n')
		if err == io.EOF {
			return tests, nil
		}
		if err != nil {
			return tests, err
		}
		var e event
		if err := json.Unmarshal(line, &e); err != nil {
			return tests, fmt.Errorf("test2json: %w: %s", err, line)
		}
		if e.Action == "output" {
			_, _ = io.WriteString(r.Log, e.Output)
		}
		if e.Test == "" {
			continue
		}
		test := Test{pkg.Name, e.Test}
		switch outcome := Outcome(e.Action); outcome {
		case "run":
			tests.open[test], tests.ran = true, true
		case Pass, Fail, Skip:
			delete(tests.open, test)
			tests.failed = tests.failed || outcome == Fail
			r.ended(test, outcome, time.Duration(e.Elapsed*float64(time.Second)), results)
		}
	}
}

// rest lists the tests that are asked for and have no outcome yet.
func (r Run) rest(ctx context.Context, pkg Package, results Results) ([]Test, error) {
	command := r.command(ctx, pkg, "-test.list="+r.Asked.tops())
	output, err := command.Output()
	if err != nil {
		return nil, fmt.Errorf("%s: list of tests: %w", pkg.Name, err)
	}
	var list []Test
	for line := range strings.Lines(string(output)) {
		test := Test{pkg.Name, strings.TrimSpace(line)}
		if _, ran := results[test]; !ran && strings.HasPrefix(test.Name, "Test") {
			list = append(list, test)
		}
	}
	return list, nil
}

// command prepares a process of the tests. It dies with us, and takes its children along when it is cancelled.
func (r Run) command(ctx context.Context, pkg Package, args ...string) *exec.Cmd {
	command := exec.CommandContext(ctx, pkg.Binary, args...)
	command.Dir = r.Dir
	command.Env = append(r.Env, "TMPDIR="+r.Dir)
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	command.Cancel = func() error { return syscall.Kill(-command.Process.Pid, syscall.SIGKILL) }
	return command
}

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
	// Pattern is go test's -run; empty runs all.
	Pattern string
	// Timeout is for the package as a whole.
	Timeout time.Duration
	// Log takes what the tests print.
	Log io.Writer
	// Ended is told about each test as it ends; it may be nil.
	Ended func(test Test, outcome Outcome, took time.Duration)
}

// maxAborts bounds how often a package is continued behind a test that ended the whole process.
const maxAborts = 25

// Package runs a package's tests. A test that ends the whole process (a panic, the timeout) has failed; the tests
// behind it are run by a further process, so that one test's fall hides no other's outcome.
func (r Run) Package(ctx context.Context, pkg Package) (Results, error) {
	results := Results{}
	pattern := r.Pattern
	for range maxAborts {
		whole, err := r.once(ctx, pkg, pattern, results)
		if err != nil || whole {
			return results, err
		}
		rest, err := r.rest(ctx, pkg, results)
		if err != nil || len(rest) == 0 {
			return results, err
		}
		fmt.Fprintf(r.Log, "\n=== the tests were cut off; %d are still to run\n", len(rest))
		pattern = Pattern(rest)
	}
	return results, fmt.Errorf("%s: cut off %d times", pkg.Name, maxAborts)
}

// event is a line of test2json.
type event struct {
	Action  string
	Test    string
	Elapsed float64
	Output  string
}

// once runs one process and adds to the results. It says whether the process came to its end.
func (r Run) once(ctx context.Context, pkg Package, pattern string, results Results) (whole bool, err error) {
	process := r.command(ctx, pkg, "-test.v=test2json", "-test.timeout="+r.Timeout.String(), "-test.run="+pattern)
	reader, writer, err := os.Pipe()
	if err != nil {
		return false, err
	}
	defer reader.Close()
	process.Stdout, process.Stderr = writer, writer
	convert := exec.Command("go", "tool", "test2json", "-t")
	convert.Stdin = reader
	events, err := convert.StdoutPipe()
	if err != nil {
		writer.Close()
		return false, err
	}
	if err := convert.Start(); err != nil {
		writer.Close()
		return false, err
	}
	err = process.Start()
	writer.Close()
	if err != nil {
		return false, errors.Join(err, convert.Wait())
	}
	open, readErr := r.read(pkg, events, results)
	processErr := process.Wait()
	if err := errors.Join(readErr, convert.Wait(), ctx.Err()); err != nil {
		return false, err
	}
	for test := range open {
		results[test] = Fail
		if r.Ended != nil {
			r.Ended(test, Fail, 0)
		}
	}
	var exit *exec.ExitError
	if processErr != nil && !errors.As(processErr, &exit) {
		return false, processErr
	}
	// Code 1 is go test's for failed tests; a panic and the timeout end with 2.
	if processErr == nil || exit.ExitCode() == 1 && len(open) == 0 {
		if processErr != nil && len(results) == 0 {
			return false, fmt.Errorf("%s: the tests do not start; their output is in the log", pkg.Name)
		}
		return true, nil
	}
	if len(results) == 0 {
		return false, fmt.Errorf("%s: the tests do not start: %w", pkg.Name, processErr)
	}
	return false, nil
}

// read follows the events; it returns the tests that began and did not end.
func (r Run) read(pkg Package, from io.Reader, results Results) (map[Test]bool, error) {
	open := map[Test]bool{}
	lines := bufio.NewReader(from)
	for {
		line, err := lines.ReadBytes('\n')
		if err == io.EOF {
			return open, nil
		}
		if err != nil {
			return open, err
		}
		var e event
		if err := json.Unmarshal(line, &e); err != nil {
			return open, fmt.Errorf("test2json: %w: %s", err, line)
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
			open[test] = true
		case Pass, Fail, Skip:
			delete(open, test)
			results[test] = outcome
			if r.Ended != nil {
				r.Ended(test, outcome, time.Duration(e.Elapsed*float64(time.Second)))
			}
		}
	}
}

// rest lists the tests that are asked for and have no outcome yet.
func (r Run) rest(ctx context.Context, pkg Package, results Results) ([]Test, error) {
	pattern := r.Pattern
	if pattern == "" {
		pattern = "."
	}
	pattern, _, _ = strings.Cut(pattern, "/")
	command := r.command(ctx, pkg, "-test.list="+pattern)
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

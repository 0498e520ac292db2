// Package suite runs packages of Go tests against containers of an engine, keeps their results, and holds them against
// the list of tests that must pass.
package suite

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Outcome is how a test ended.
type Outcome string

// The outcomes.
const (
	Pass Outcome = "pass"
	Fail Outcome = "fail"
	Skip Outcome = "skip" // the test itself decided so
)

// Test names a test or, with slashes in its name, a subtest.
type Test struct {
	Package string `json:"package"`
	Name    string `json:"test"`
}

// Top is the test that a subtest belongs to; a test belongs to itself.
func (t Test) Top() Test {
	name, _, _ := strings.Cut(t.Name, "/")
	return Test{t.Package, name}
}

// IsTop says that this is no subtest.
func (t Test) IsTop() bool { return !strings.Contains(t.Name, "/") }

func (t Test) String() string { return t.Package + " " + t.Name }

func compareTests(a, b Test) int {
	return cmp.Or(strings.Compare(a.Package, b.Package), strings.Compare(a.Name, b.Name))
}

// Results are the outcomes of tests.
type Results map[Test]Outcome

// Tests lists the tests in order.
func (r Results) Tests() []Test {
	list := make([]Test, 0, len(r))
	for test := range r {
		list = append(list, test)
	}
	slices.SortFunc(list, compareTests)
	return list
}

type resultLine struct {
	Test
	Outcome Outcome `json:"outcome"`
}

// ReadResults reads a file of results, one JSON object a line. A file that is not there holds none.
func ReadResults(file string) (Results, error) {
	content, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return Results{}, nil
	}
	if err != nil {
		return nil, err
	}
	results := Results{}
	lines := bufio.NewScanner(bytes.NewReader(content))
	for number := 1; lines.Scan(); number++ {
		var line resultLine
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			return nil, fmt.Errorf("%s:%d: %w", file, number, err)
		}
		results[line.Test] = line.Outcome
	}
	return results, lines.Err()
}

// Write writes the results to a file, sorted, all or nothing.
func (r Results) Write(file string) error {
	var content bytes.Buffer
	encoder := json.NewEncoder(&content)
	encoder.SetEscapeHTML(false)
	for _, test := range r.Tests() {
		if err := encoder.Encode(resultLine{test, r[test]}); err != nil {
			return err
		}
	}
	return writeFile(file, content.Bytes())
}

// Replace puts in the results of whole packages for what was there of them.
func (r Results) Replace(packages []string, with Results) {
	for test := range r {
		if slices.Contains(packages, test.Package) {
			delete(r, test)
		}
	}
	for test, outcome := range with {
		r[test] = outcome
	}
}

// In picks the results of some packages.
func (r Results) In(packages []string) Results {
	picked := Results{}
	for test, outcome := range r {
		if slices.Contains(packages, test.Package) {
			picked[test] = outcome
		}
	}
	return picked
}

// writeFile replaces a file in one step.
func writeFile(file string, content []byte) error {
	next, err := os.CreateTemp(filepath.Dir(file), "."+filepath.Base(file)+"-")
	if err != nil {
		return err
	}
	_, err = next.Write(content)
	if err = errors.Join(err, next.Chmod(0o644), next.Close()); err == nil {
		err = os.Rename(next.Name(), file)
	}
	if err != nil {
		os.Remove(next.Name())
	}
	return err
}

package suite

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"slices"
	"strings"
)

// Expected is the list of tests that must pass: a line each, "package test" or "package test/subtest". Lines that
// begin with # are comments.
type Expected struct {
	Tests []Test
	file  string
	head  string // the comments at the top
}

// ReadExpected reads the list. A file that is not there is an empty list.
func ReadExpected(file string) (*Expected, error) {
	content, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	list := &Expected{file: file}
	for number, line := range strings.Split(string(content), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			if len(list.Tests) == 0 && line != "" {
				list.head += line + "\n"
			}
			continue
		}
		pkg, name, found := strings.Cut(line, " ")
		test := Test{pkg, strings.TrimSpace(name)}
		switch {
		case !found:
			return nil, fmt.Errorf("%s:%d: a line is a package and a test, not %q", file, number+1, line)
		case slices.Contains(list.Tests, test):
			return nil, fmt.Errorf("%s:%d: %s stands there twice", file, number+1, test)
		}
		list.Tests = append(list.Tests, test)
	}
	return list, nil
}

// Tops lists the tests to run: those listed, and those that listed subtests belong to.
func (e *Expected) Tops() []Test { return tops(e.Tests) }

func tops(tests []Test) []Test {
	var list []Test
	for _, test := range tests {
		if top := test.Top(); !slices.Contains(list, top) {
			list = append(list, top)
		}
	}
	slices.SortFunc(list, compareTests)
	return list
}

// Failing lists the expected tests that did not pass, of those in the given packages (nil: of all). A test that did not
// run, or that skipped itself, did not pass.
func (e *Expected) Failing(results Results, packages []string) []Test {
	var list []Test
	for _, test := range e.Tests {
		if packages != nil && !slices.Contains(packages, test.Package) {
			continue
		}
		if results[test] != Pass {
			list = append(list, test)
		}
	}
	return list
}

// News lists what passed and is not expected: tests, and where a test failed, those of its subtests that passed. What
// is expected as a part of a listed test is not news.
func (e *Expected) News(results Results) []Test {
	var list []Test
	for _, test := range results.Tests() {
		top := test.Top()
		if results[test] != Pass || slices.Contains(e.Tests, test) || slices.Contains(e.Tests, top) {
			continue
		}
		if test.IsTop() || results[top] != Pass {
			list = append(list, test)
		}
	}
	return list
}

// Add puts tests into the file. No line ever goes: a subtest that was listed before its whole test passed stays listed.
func (e *Expected) Add(tests []Test) error {
	all := slices.Concat(e.Tests, tests)
	slices.SortFunc(all, compareTests)
	e.Tests = slices.Compact(all)
	text := e.head
	for _, test := range e.Tests {
		text += test.String() + "\n"
	}
	return writeFile(e.file, []byte(text))
}

// Pattern is the regular expression that makes go test run exactly these tests, all of one package.
func Pattern(tests []Test) string {
	var names []string
	for _, test := range tops(tests) {
		names = append(names, regexp.QuoteMeta(test.Name))
	}
	return "^(" + strings.Join(names, "|") + ")$"
}

package suite

import (
	"fmt"
	"os"
	"slices"
	"strings"
)

// The lines between which a table stands in a file.
const (
	tableBegin = "<!-- results: begin -->"
	tableEnd   = "<!-- results: end -->"
)

type tally struct{ pass, fail, skip int }

func (t *tally) add(outcome Outcome) {
	switch outcome {
	case Pass:
		t.pass++
	case Skip:
		t.skip++
	default:
		t.fail++
	}
}

func (t tally) cells() string {
	return fmt.Sprintf("%d / %d | %d | %d", t.pass, t.pass+t.fail+t.skip, t.fail, t.skip)
}

// Table sums the results up in Markdown, a line for each package.
func Table(results Results) string {
	tests, subtests := map[string]*tally{}, map[string]*tally{}
	var packages []string
	for test, outcome := range results {
		if tests[test.Package] == nil {
			packages = append(packages, test.Package)
			tests[test.Package], subtests[test.Package] = &tally{}, &tally{}
		}
		if test.IsTop() {
			tests[test.Package].add(outcome)
		} else {
			subtests[test.Package].add(outcome)
		}
	}
	slices.Sort(packages)
	var all, allSub tally
	text := "| package | tests passed | failed | skipped | subtests passed | failed | skipped |\n|---|---|---|---|---|---|---|\n"
	for _, name := range packages {
		t, s := *tests[name], *subtests[name]
		text += fmt.Sprintf("| %s | %s | %s |\n", name, t.cells(), s.cells())
		all = tally{all.pass + t.pass, all.fail + t.fail, all.skip + t.skip}
		allSub = tally{allSub.pass + s.pass, allSub.fail + s.fail, allSub.skip + s.skip}
	}
	return text + fmt.Sprintf("| **all** | %s | %s |\n", all.cells(), allSub.cells())
}

// ReadTable returns the text between the markers of a file.
func ReadTable(file string) (string, error) {
	_, text, _, err := cutTable(file)
	return text, err
}

// WriteTable puts a text between the markers of a file.
func WriteTable(file, text string) error {
	before, _, after, err := cutTable(file)
	if err != nil {
		return err
	}
	return writeFile(file, []byte(before+tableBegin+"\n"+text+tableEnd+after))
}

func cutTable(file string) (before, text, after string, err error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return "", "", "", err
	}
	before, rest, begins := strings.Cut(string(content), tableBegin)
	text, after, ends := strings.Cut(rest, tableEnd)
	if !begins || !ends {
		return "", "", "", fmt.Errorf("%s: the lines %s and %s are missing", file, tableBegin, tableEnd)
	}
	return before, text, after, nil
}

package suite

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Selection is what one asks for with go test's -run: alternatives of regular expressions, one for each level of
// subtests. The zero Selection asks for all.
type Selection struct {
	pattern      string
	alternatives [][]*regexp.Regexp
}

// ParseSelection reads a pattern; an empty one asks for all.
func ParseSelection(pattern string) (Selection, error) {
	s := Selection{pattern: pattern}
	if pattern == "" {
		return s, nil
	}
	for _, alternative := range split(pattern, '|') {
		var levels []*regexp.Regexp
		for _, level := range split(alternative, '/') {
			// As the names of subtests are rewritten.
			expression, err := regexp.Compile(strings.ReplaceAll(level, " ", "_"))
			if err != nil {
				return s, fmt.Errorf("%s: %w", pattern, err)
			}
			levels = append(levels, expression)
		}
		s.alternatives = append(s.alternatives, levels)
	}
	return s, nil
}

func (s Selection) String() string { return s.pattern }

// All says that all is asked for.
func (s Selection) All() bool { return len(s.alternatives) == 0 }

// tops is the pattern of the tests to which belongs what is asked for.
func (s Selection) tops() string {
	if s.All() {
		return "."
	}
	var list []string
	for _, levels := range s.alternatives {
		list = append(list, "(?:"+levels[0].String()+")")
	}
	return strings.Join(list, "|")
}

// names says that a test is one of those asked for, or a part of one. The test that only leads to a subtest is not.
func (s Selection) names(test Test) bool {
	if s.All() {
		return true
	}
	parts := strings.Split(test.Name, "/")
	return slices.ContainsFunc(s.alternatives, func(levels []*regexp.Regexp) bool {
		if len(parts) < len(levels) {
			return false
		}
		for at, level := range levels {
			if !level.MatchString(parts[at]) {
				return false
			}
		}
		return true
	})
}

// Of picks from results what was asked for. A test of which only some subtests were asked for has not passed by that,
// nor by having none of that name; but if it failed by itself, that is the outcome.
func (s Selection) Of(results Results) Results {
	picked := Results{}
	for test, outcome := range results {
		if s.names(test) || outcome == Fail {
			picked[test] = outcome
		}
	}
	return picked
}

// split splits at a byte that stands outside of brackets, as go test does.
func split(pattern string, at byte) []string {
	var list []string
	begin, class, group := 0, 0, 0
	for i := 0; i < len(pattern); i++ {
		switch c := pattern[i]; {
		case c == '\\':
			i++
		case c == '[':
			class++
		case c == ']':
			class = max(class-1, 0)
		case class > 0:
		case c == '(':
			group++
		case c == ')':
			group--
		case c == at && group == 0:
			list = append(list, pattern[begin:i])
			begin = i + 1
		}
	}
	return append(list, pattern[begin:])
}

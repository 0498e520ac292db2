package suite

import (
	"slices"
	"testing"
)

func TestWhatIsAskedForIsToldFromWhatLeadsToIt(t *testing.T) {
	results := Results{
		{"p", "TestA"}: Pass, {"p", "TestA/one_by_one"}: Pass, {"p", "TestA/one_by_one/deep"}: Pass, {"p", "TestB"}: Fail, {"p", "TestB/x"}: Pass,
		{"p", "TestC"}: Skip,
	}
	for pattern, want := range map[string][]string{
		"":                       {"TestA", "TestA/one_by_one", "TestA/one_by_one/deep", "TestB", "TestB/x", "TestC"},
		"TestA":                  {"TestA", "TestA/one_by_one", "TestA/one_by_one/deep", "TestB"},
		"TestA/one by":           {"TestA/one_by_one", "TestA/one_by_one/deep", "TestB"},
		"TestA/(one|two)/[/|]?d": {"TestA/one_by_one/deep", "TestB"},
		"TestA/none":             {"TestB"},
		"TestA/none|TestC":       {"TestB", "TestC"},
		"TestB/x":                {"TestB", "TestB/x"},
		`Test\/A`:                {"TestB"},
	} {
		s, err := ParseSelection(pattern)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, test := range s.Of(results).Tests() {
			got = append(got, test.Name)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", pattern, got, want)
		}
	}
	s, err := ParseSelection("TestA/x|TestB|[|/]")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := s.tops(), "(?:TestA)|(?:TestB)|(?:[|/])"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if _, err := ParseSelection("TestA/("); err == nil {
		t.Error("a pattern with a mistake was taken")
	}
}

func TestOnlyFailedTestsExplainCodeOne(t *testing.T) {
	open := map[Test]bool{{"p", "TestA"}: true}
	for _, test := range []struct {
		says                string
		code                int
		seen                seen
		whole, fault, error bool
	}{
		{"all passed", 0, seen{ran: true}, true, false, false},
		{"some failed", 1, seen{ran: true, failed: true}, true, false, false},
		{"nothing was selected", 0, seen{}, true, false, false},
		{"cut off in a test", 2, seen{ran: true, open: open}, false, false, false},
		{"cut off in a test by a good exit", 0, seen{ran: true, open: open}, false, false, false},
		{"code 1 and no failure", 1, seen{ran: true}, false, true, false},
		{"a panic between tests", 2, seen{ran: true, failed: true}, false, true, false},
		{"a signal between tests", -1, seen{ran: true}, false, true, false},
		{"no start", 1, seen{}, false, false, true},
	} {
		end, err := test.seen.judge(Package{Name: "p"}, test.code)
		if end.whole != test.whole || (end.fault != nil) != test.fault || (err != nil) != test.error {
			t.Errorf("%s: %+v %v", test.says, end, err)
		}
	}
}

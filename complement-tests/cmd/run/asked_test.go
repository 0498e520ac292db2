package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestAskingForATestThatIsNotThereIsAnError(t *testing.T) {
	o := home(t, "# Head.\nmini TestZLast\n")
	for _, pattern := range []string{"TestNope", "TestVersions/nosuchsub", "TestVersions/are_a_list/deeper", "TestNope/are_a_list"} {
		o.pattern, o.add = pattern, true
		out := red(t, o, 2, "no test is called "+pattern+", so nothing was tested")
		if strings.Contains(out, " passed, ") {
			t.Errorf("%s was counted:\n%s", pattern, out)
		}
		if list, _ := os.ReadFile(filepath.Join(o.home, "expected.txt")); string(list) != "# Head.\nmini TestZLast\n" {
			t.Errorf("%s was added:\n%s", pattern, list)
		}
	}
	o.pattern = "Test("
	red(t, o, 2, "missing closing )")
}

func TestASubtestCanBeAskedForAndStandsForItselfOnly(t *testing.T) {
	o := home(t, "mini TestZLast\n")
	o.pattern, o.add = "TestVersions/are a", true
	must(t, o, 0, "\n1 passed, 0 failed\n")
	if list, _ := os.ReadFile(filepath.Join(o.home, "expected.txt")); string(list) != "mini TestVersions/are_a_list\nmini TestZLast\n" {
		t.Fatalf("%s", list)
	}
	t.Setenv("FAKEHS", "dead")
	must(t, o, 1, "fail mini TestVersions", "\n0 passed, 1 failed\n")
}

// A build tag may drop tests: those that the user has set for all builds do not count.
func TestTheUsersFlagsDropNoTest(t *testing.T) {
	settings := filepath.Join(t.TempDir(), "env")
	os.WriteFile(settings, []byte("GOFLAGS=-tags=mini_drops\n"), 0o600)
	for name, value := range map[string]string{"GOFLAGS": "-tags=mini_drops", "GOENV": settings} {
		t.Run(name, func(t *testing.T) {
			o := home(t, "mini TestZLast\n")
			o.pattern = "TestZLast"
			t.Setenv(name, value)
			must(t, o, 0, "\n1 passed, 0 failed\n")
		})
	}
}

func TestWhatKeepsTheSuiteFromRunningIsAnErrorUnlessItCannotBeFetched(t *testing.T) {
	o := home(t, "mini TestZLast\n")
	o.check = true
	o.patterns = []string{"example.org/no/such/suite/..."}
	red(t, o, 2, "nothing was tested")

	o.patterns, o.module = []string{"./..."}, filepath.Join(o.home, "gone")
	red(t, o, 2, "nothing was tested")

	o.module = t.TempDir()
	os.WriteFile(filepath.Join(o.module, "go.mod"), []byte("module m\n\ngo 1.25.0\n\nrequire example.org/suite v1.0.0\n"), 0o644)
	os.WriteFile(filepath.Join(o.module, "go.sum"), []byte("example.org/suite v1.0.0/go.mod h1:"+strings.Repeat("A", 43)+"=\n"), 0o644)
	t.Setenv("GOMODCACHE", t.TempDir())
	t.Setenv("GOPROXY", "off")
	red(t, o, noSuite, "NOT RUN, 0 tests: ")

	o = home(t, "mini TestZLast\n")
	o.cache = filepath.Join(o.binary, "below a file")
	red(t, o, 2, "not a directory")
}

// red runs, and wants a code and an error with these words. It returns what was printed.
func red(t *testing.T, o options, wantCode int, words string) string {
	t.Helper()
	var out strings.Builder
	code, err := run(context.Background(), o, &out)
	if code != wantCode || err == nil || !strings.Contains(err.Error(), words) {
		t.Fatalf("code %d (want %d), error %v (want %q)\n%s\n%s", code, wantCode, err, words, out.String(), printed(o))
	}
	nothingLeft(t)
	return out.String()
}

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestACheckRunsAllTestsAndNamesWhatTheListLacks(t *testing.T) {
	o := home(t, "mini TestZLast\n")
	o.check = true
	must(t, o, 0, "pass mini TestVersions", "Passed and not in expected.txt (add them):\n  mini TestAPausedServerWaits\n",
		"  mini TestVersions\n\n1 passed, 0 failed\n")
	if _, err := os.Stat(filepath.Join(o.home, "results.jsonl")); err == nil {
		t.Fatal("a check was recorded")
	}
	// What fails and is not in the list is not held against the server, and not tried again.
	t.Setenv("MINI_FLAKY", filepath.Join(o.home, "flaky"))
	t.Setenv("MINI_FAILURES", "9")
	must(t, o, 0, "fail mini TestFlaky", "\n1 passed, 0 failed\n")
	if ran, _ := os.ReadFile(filepath.Join(o.home, "flaky")); len(ran) != 1 {
		t.Fatalf("it ran %d times", len(ran))
	}
}

func TestALineThatFailsTwiceIsNotTriedAThirdTime(t *testing.T) {
	o := home(t, "mini TestFlaky\nmini TestZLast\n")
	o.check = true
	t.Setenv("MINI_FLAKY", filepath.Join(o.home, "flaky"))
	t.Setenv("MINI_FAILURES", "2")
	must(t, o, 1, "tried once more:\n  mini TestFlaky\n", "Failed twice:\n  mini TestFlaky\n", "\n1 passed, 1 failed\n")
	if ran, _ := os.ReadFile(filepath.Join(o.home, "flaky")); len(ran) != 2 {
		t.Fatalf("it ran %d times", len(ran))
	}
}

func TestATestThatHangsFailsAloneAndAllIsSummedUp(t *testing.T) {
	o := home(t, "mini TestHangs\nmini TestVersions\nmini TestZLast\n")
	o.check, o.timeout, o.pattern = true, 8*time.Second, "TestVersions|TestHangs|TestZLast"
	t.Setenv("MINI_HANG", filepath.Join(o.home, "hangs"))
	must(t, o, 1, "fail mini TestHangs", "pass mini TestZLast", "Failed twice:\n  mini TestHangs\n", "\n2 passed, 1 failed\n")
}

func TestTheLimitOfAllEndsARunWithASummary(t *testing.T) {
	o := home(t, "mini TestHangs\nmini TestVersions\nmini TestZLast\n")
	o.check, o.limit, o.pattern = true, 12*time.Second, "TestVersions|TestHangs|TestZLast"
	t.Setenv("MINI_HANG", filepath.Join(o.home, "hangs"))
	out := red(t, o, 2, "mini: no time is left for its tests")
	for _, line := range []string{"fail mini TestHangs", "Failed twice:\n  mini TestHangs\n  mini TestZLast\n", "\n1 passed, 2 failed\n"} {
		if !strings.Contains(out, line) {
			t.Errorf("%q is missing in\n%s", line, out)
		}
	}
}

func TestAProcessThatFailsBehindItsLastTestFailsThePackage(t *testing.T) {
	o := home(t, "mini TestZLast\n")
	for _, code := range []string{"1", "2"} {
		for _, pattern := range []string{"", "TestZLast"} {
			o.pattern, o.check = pattern, pattern != ""
			t.Setenv("MINI_EXIT", code)
			out := red(t, o, 2, "mini: its process ended with code "+code+" when no test was running")
			if !strings.Contains(out, "pass mini TestZLast") {
				t.Errorf("code %s: the tests' outcomes are lost:\n%s", code, out)
			}
			if recorded, _ := os.ReadFile(filepath.Join(o.home, "results.jsonl")); len(recorded) > 0 {
				t.Errorf("code %s: it was recorded:\n%s", code, recorded)
			}
		}
	}
}

func TestALineOfAPackageThatIsNotThereFailsEveryKindOfRun(t *testing.T) {
	o := home(t, "mini TestZLast\nother TestAny\n")
	must(t, o, 1, "Expected to pass, and did not:\n  other TestAny\n")
	o.packages = []string{"mini"}
	must(t, o, 0, "\n7 passed, 0 failed\n")
}

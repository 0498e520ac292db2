package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"complement-tests/internal/network"
	"complement-tests/internal/sandbox"
)

func TestMain(m *testing.M) {
	sandbox.Main()
	code := m.Run()
	if fake.dir != "" {
		os.RemoveAll(fake.dir)
	}
	os.Exit(code)
}

// fake is the fake server, built once for all tests.
var fake struct {
	once sync.Once
	dir  string
	err  error
}

func buildFake() (string, error) {
	fake.once.Do(func() {
		if fake.dir, fake.err = os.MkdirTemp("", "fakehs-"); fake.err != nil {
			return
		}
		build := exec.Command("go", "build", "-o", fake.dir+"/fakehs", "complement-tests/cmd/fakehs")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if output, err := build.CombinedOutput(); err != nil {
			fake.err = fmt.Errorf("%w: %s", err, output)
		}
	})
	return fake.dir + "/fakehs", fake.err
}

// home makes a folder like complement-tests/, with the entry script that is used for vatra too, and a fake server.
func home(t *testing.T, expected string) options {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
	dir := t.TempDir()
	binary, err := buildFake()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(filepath.Join(dir, "image"), os.DirFS("../../image")); err != nil {
		t.Fatal(err)
	}
	os.WriteFile(filepath.Join(dir, "README.md"), []byte("# Title\n<!-- results: begin -->\n<!-- results: end -->\nEnd\n"), 0o644)
	os.WriteFile(filepath.Join(dir, "expected.txt"), []byte(expected), 0o644)
	module, err := filepath.Abs("testdata/mini")
	if err != nil {
		t.Fatal(err)
	}
	return options{
		home: dir, binary: binary, module: module, patterns: []string{"./..."}, cache: filepath.Join(dir, "cache"),
		timeout: time.Minute,
	}
}

// must runs, and wants a code and lines in what is printed.
func must(t *testing.T, o options, wantCode int, lines ...string) string {
	t.Helper()
	var out bytes.Buffer
	code, err := run(context.Background(), o, &out)
	if err != nil || code != wantCode {
		t.Fatalf("code %d (want %d), error %v\n%s\n%s", code, wantCode, err, out.String(), printed(o))
	}
	for _, line := range lines {
		if !strings.Contains(out.String(), line) {
			t.Fatalf("%q is missing in\n%s\n%s", line, out.String(), printed(o))
		}
	}
	nothingLeft(t)
	return out.String()
}

// printed is what the tests of the runs so far printed.
func printed(o options) string {
	files, _ := filepath.Glob(filepath.Join(o.cache, "logs", "*", "*.log"))
	var all strings.Builder
	for _, file := range files {
		content, _ := os.ReadFile(file)
		all.Write(content)
	}
	return all.String()
}

// nothingLeft looks for what a run of this process may have left behind.
func nothingLeft(t *testing.T) {
	t.Helper()
	children, err := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/children", os.Getpid()))
	if err == nil && len(children) > 0 {
		t.Errorf("processes are left: %s", children)
	}
	for _, base := range []string{os.TempDir(), "/dev/shm"} {
		for _, kind := range []string{"run", "shim"} {
			left, _ := filepath.Glob(fmt.Sprintf("%s/complement-%s-%d-*", base, kind, os.Getpid()))
			if len(left) > 0 {
				t.Errorf("files are left: %v", left)
			}
		}
	}
	if orphans, err := network.Orphans(os.Getpid()); err != nil || len(orphans) > 0 {
		t.Errorf("interfaces are left: %v %v", orphans, err)
	}
}

func TestTheWholeSuiteRunsAndIsRecorded(t *testing.T) {
	o := home(t, "# A comment.\nmini TestFlaky\n")
	out := must(t, o, 0, "pass mini TestFilesOutliveCommitAndRestart", "pass mini TestServersAreApartAndFindEachOther",
		"pass mini TestAPausedServerWaits", "skip mini TestHangs",
		"Passed and not in expected.txt:\n  mini TestAPausedServerWaits\n", "\n7 passed, 0 failed\n")
	if !strings.HasSuffix(out, "\n7 passed, 0 failed\n") {
		t.Fatal("the count is not the last line")
	}
	results, err := os.ReadFile(filepath.Join(o.home, "results.jsonl"))
	if err != nil || !strings.Contains(string(results), `{"package":"mini","test":"TestVersions/are_a_list","outcome":"pass"}`) {
		t.Fatalf("%v\n%s", err, results)
	}
	readme, _ := os.ReadFile(filepath.Join(o.home, "README.md"))
	if !strings.Contains(string(readme), "| mini | 7 / 8 | 0 | 1 | 1 / 1 | 0 | 0 |") || !strings.HasSuffix(string(readme), "\nEnd\n") ||
		!regexp.MustCompile(`\nThe last run of all packages took \d+s on \d+ cores, `).Match(readme) {
		t.Fatalf("%s", readme)
	}
}

// The instrument is trusted because it can turn red.
func TestABrokenServerTurnsTestsRed(t *testing.T) {
	o := home(t, "mini TestVersions\nmini TestFilesOutliveCommitAndRestart\n")
	o.check = true
	must(t, o, 0, "\n2 passed, 0 failed\n")

	t.Setenv("FAKEHS", "broken")
	must(t, o, 1, "fail mini TestVersions", "       TestVersions/are_a_list\n", "Failed twice:\n  mini TestVersions\n",
		"pass mini TestFilesOutliveCommitAndRestart", "\n1 passed, 1 failed\n")

	t.Setenv("FAKEHS", "dead")
	must(t, o, 1, "\n0 passed, 2 failed\n")
	if !strings.Contains(printed(o), "fakehs: dead on arrival") {
		t.Fatalf("the server's last words are lost:\n%s", printed(o))
	}
}

func TestALineThatFailsOnceIsTriedAgain(t *testing.T) {
	o := home(t, "mini TestFlaky\nmini TestZLast\n")
	o.check = true
	t.Setenv("MINI_FLAKY", filepath.Join(o.home, "flaky"))
	t.Setenv("MINI_FAILURES", "1")
	must(t, o, 0, "tried once more:\n  mini TestFlaky\n", "Passed at the second try: mini TestFlaky\n", "\n2 passed, 0 failed\n")
}

func TestALineThatNamesNoTestFails(t *testing.T) {
	o := home(t, "mini TestZLast\nmini TestGone\nother TestAny\n")
	o.check = true
	must(t, o, 1, "Failed twice:\n  mini TestGone\n  other TestAny\n", "\n1 passed, 2 failed\n")
}

func TestOneTestsPanicHidesNoOther(t *testing.T) {
	o := home(t, "")
	t.Setenv("MINI_PANIC", "1")
	must(t, o, 0, "fail mini TestPanics", "pass mini TestZLast", "\n6 passed, 1 failed\n")
}

func TestATestCanBeAskedFor(t *testing.T) {
	o := home(t, "")
	o.pattern = "TestVersions"
	must(t, o, 0, "\n1 passed, 0 failed\n")
	if _, err := os.Stat(filepath.Join(o.home, "results.jsonl")); err == nil {
		t.Fatal("a run of one test was recorded as a run of all")
	}
	t.Setenv("FAKEHS", "broken")
	must(t, o, 1, "\n0 passed, 1 failed\n")
}

func TestWhatPassesIsAddedToTheListWhenAskedFor(t *testing.T) {
	o := home(t, "# Head.\nmini TestFlaky\n")
	o.add = true
	must(t, o, 0)
	list, _ := os.ReadFile(filepath.Join(o.home, "expected.txt"))
	if want := "# Head.\nmini TestAPausedServerWaits\nmini TestFilesOutliveCommitAndRestart\nmini TestFlaky\n"; !strings.HasPrefix(string(list), want) {
		t.Fatalf("%s", list)
	}
}

func TestAnInterruptedRunLeavesNothing(t *testing.T) {
	o := home(t, "")
	o.pattern = "TestHangs"
	mark := filepath.Join(o.home, "hangs")
	t.Setenv("MINI_HANG", mark)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		_, err := run(ctx, o, &bytes.Buffer{})
		done <- err
	}()
	for range 300 {
		if _, err := os.Stat(mark); err == nil {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	cancel()
	select {
	case err := <-done:
		if !errors.Is(err, context.Canceled) {
			t.Fatalf("%v\n%s", err, printed(o))
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the run does not end")
	}
	nothingLeft(t)
}

func TestTwoRunsAtOnceDoNotDisturbEachOther(t *testing.T) {
	one, two := home(t, ""), home(t, "")
	done := make(chan string, 2)
	for _, o := range []options{one, two} {
		go func() {
			var out bytes.Buffer
			code, err := run(context.Background(), o, &out)
			if code != 0 || err != nil || !strings.Contains(out.String(), "\n7 passed, 0 failed\n") {
				done <- out.String() + printed(o)
			}
			done <- ""
		}()
	}
	for range 2 {
		if fault := <-done; fault != "" {
			t.Fatal(fault)
		}
	}
}

func TestAServerThatIsNotThereIsSaidSo(t *testing.T) {
	o := home(t, "mini TestZLast\n")
	o.binary = filepath.Join(o.home, "gone")
	code, err := run(context.Background(), o, &bytes.Buffer{})
	if code == 0 || err == nil || !strings.Contains(err.Error(), "build it first") {
		t.Fatalf("code %d, error %v", code, err)
	}
	nothingLeft(t)
}

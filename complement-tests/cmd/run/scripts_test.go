package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// tools makes a folder of programs: scripts by name, and links to what the host has of the others.
func tools(t *testing.T, scripts map[string]string, others ...string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range scripts {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range others {
		path, err := exec.LookPath(name)
		if err != nil {
			t.Skipf("%s is not there", name)
		}
		if err := os.Symlink(path, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// script runs a command; it returns its code and what it said.
func script(t *testing.T, env []string, name string, args ...string) (int, string) {
	t.Helper()
	command := exec.Command(name, args...)
	command.Env = append(os.Environ(), env...)
	output, err := command.CombinedOutput()
	if command.ProcessState == nil {
		t.Fatal(err)
	}
	return command.ProcessState.ExitCode(), string(output)
}

func TestOnlyASuiteThatCannotBeFetchedIsLeftOutAndThatLoudly(t *testing.T) {
	root := "PATH=" + tools(t, map[string]string{"id": "echo 0"}) + ":" + os.Getenv("PATH")
	user := "PATH=" + tools(t, map[string]string{"id": "echo 1000"}) + ":" + os.Getenv("PATH")
	for _, test := range []struct {
		env      []string
		command  string
		code     int
		lastLine string
	}{
		{[]string{root}, "exit 0", 0, "== stage: good after "},
		{[]string{root}, "exit 1", 1, "== stage: failed with code 1 "},
		{[]string{root}, "exit 2", 2, "== stage: failed with code 2 "},
		{[]string{root}, "exit 77", 77, "== stage: failed with code 77 "},
		{[]string{root}, "exec sleep 9", 124, "== stage: ended after "},
		{[]string{root}, "exit 3", 0, "== stage: NOT RUN, 0 tests: the source"},
		{[]string{root, "COMPLEMENT_REQUIRED=0"}, "exit 3", 0, "== stage: NOT RUN, 0 tests: the source"},
		{[]string{root, "COMPLEMENT_REQUIRED=1"}, "exit 3", 1, "== stage: NOT RUN, 0 tests: the source"},
		{[]string{root, "COMPLEMENT_REQUIRED=1"}, "exit 0", 0, "== stage: good after "},
		{[]string{user}, "exit 1", 0, "== stage: NOT RUN, 0 tests: it needs root"},
		{[]string{user, "COMPLEMENT_REQUIRED=1"}, "exit 0", 1, "== stage: NOT RUN, 0 tests: it needs root"},
	} {
		env := append([]string{"COMPLEMENT_REQUIRED="}, test.env...)
		code, said := script(t, env, "../../../scripts/complement.sh", "stage", "1", "sh", "-c", test.command)
		lines := strings.Split(strings.TrimSpace(said), "\n")
		if code != test.code || !strings.HasPrefix(lines[len(lines)-1], test.lastLine) {
			t.Errorf("%v %s: code %d (want %d):\n%s(want %s)", test.env, test.command, code, test.code, said, test.lastLine)
		}
	}
}

func TestWhatIsAskedForReachesTheRunnerAsItWasWritten(t *testing.T) {
	if _, err := exec.LookPath("make"); err != nil {
		t.Skip("make is not there")
	}
	makefile := filepath.Join(t.TempDir(), "Makefile")
	inc, err := filepath.Abs("../../Makefile.inc")
	if err != nil {
		t.Fatal(err)
	}
	text := "CARGO_TARGET_DIR := target\nVATRA := vatra\ninclude " + inc + "\nshow:\n\t@printf '%s\\n' $(COMPLEMENT)\n"
	if err := os.WriteFile(makefile, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, pattern := range []string{"TestLogin", "TestA/it's_so", "^TestA$", "Test A|(TestB)/\"x\", y", "'; false '", "`false`$(false)"} {
		code, said := script(t, nil, "make", "-s", "-f", makefile, "show", "RUN="+pattern)
		want := "target/complement-run\n-home\ncomplement-tests\n-binary\nvatra\n-run\n" + pattern + "\n"
		if code != 0 || said != want {
			t.Errorf("%s: code %d:\n%s", pattern, code, said)
		}
	}
	if code, said := script(t, nil, "make", "-s", "-f", makefile, "show", "PACKAGES=it's,b"); code != 0 || !strings.HasSuffix(said, "\n-packages\nit's,b\n") {
		t.Errorf("code %d:\n%s", code, said)
	}
	if code, said := script(t, nil, "make", "-s", "-f", makefile, "show"); code != 0 || !strings.HasSuffix(said, "\nvatra\n") {
		t.Errorf("code %d:\n%s", code, said)
	}
}

func TestAGoThatIsMissingOrTooOldIsSaidSo(t *testing.T) {
	needs := []string{"bash", "dirname", "sed", "sort", "head", "id"}
	there := map[string]string{"ip": "", "openssl": ""}
	with := func(goScript string) map[string]string {
		scripts := map[string]string{"go": goScript}
		for name, text := range there {
			scripts[name] = text
		}
		return scripts
	}
	for _, test := range []struct {
		says    string
		scripts map[string]string
		code    int
		words   string
	}{
		{"no Go", there, 1, "Go is missing: 1.25 or later is needed"},
		{"Debian 12's", with("echo go version go1.19.8 linux/amd64"), 1, "Go is too old: 1.25 or later is needed (https://go.dev/dl/), and "},
		{"one that knows that it is", with(`if [ "$GOTOOLCHAIN" = local ]; then echo go version go1.24.3 linux/amd64; else echo "go: go.mod requires go >= 1.25.0" >&2; exit 1; fi`),
			1, "/go is 1.24.3"},
		{"one that tells nothing", with("exit 1"), 1, "is of no version that it tells"},
		{"just enough", with("echo go version go1.25 linux/amd64"), 0, ""},
		{"a later one", with("echo go version go1.100.2 linux/amd64"), 0, ""},
		{"one in the making", with("echo go version devel go1.27-abcdef Mon linux/amd64"), 0, ""},
	} {
		code, said := script(t, []string{"PATH=" + tools(t, test.scripts, needs...)}, "../../setup.sh")
		if code != test.code || !strings.Contains(said, test.words) || test.words == "" && said != "" {
			t.Errorf("%s: code %d (want %d): %s", test.says, code, test.code, said)
		}
	}
}

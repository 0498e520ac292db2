package suite

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const (
	pinned  = "module m\n\ngo 1.25.0\n\nrequire example.org/suite v1.0.0\n"
	sumLine = "example.org/suite v1.0.0/go.mod h1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n"
)

// fetchFrom tries to fetch a module with these files from a proxy.
func fetchFrom(t *testing.T, proxy, mod, sum string) error {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"go.mod": mod, "go.sum": sum} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("GOMODCACHE", t.TempDir())
	t.Setenv("GOPROXY", proxy)
	t.Setenv("GOSUMDB", "off")
	return fetch(context.Background(), dir)
}

// answers is a module proxy that gives one answer to everything.
func answers(t *testing.T, status int, body string) string {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		fmt.Fprint(w, body)
	}))
	t.Cleanup(server.Close)
	return server.URL
}

func TestASuiteThatNobodyHandsOutIsToldFromOtherFaults(t *testing.T) {
	closed := httptest.NewServer(http.NotFoundHandler())
	closed.Close()
	nothing := answers(t, 404, "not found: example.org/suite@v1.0.0: invalid version: unknown revision v1.0.0")
	for _, test := range []struct {
		says, proxy, mod, sum string
		unfetched             bool
	}{
		{"the proxy does not know it", nothing, pinned, sumLine, true},
		{"the proxy refuses it", answers(t, 403, "no"), pinned, sumLine, true},
		{"the proxy is out of order", answers(t, 502, "oops"), pinned, sumLine, true},
		{"the proxy does not answer", closed.URL, pinned, sumLine, true},
		{"there is no network", "off", pinned, sumLine, true},
		{"a folder as a proxy that does not have it", "file:///nonexistent", pinned, sumLine, true},

		{"a mistyped pin", nothing, strings.Replace(pinned, "v1.0.0", "v1.0.1", 1), sumLine, false},
		{"a pin without a sum", nothing, pinned, "", false},
		{"a version that is none", nothing, strings.Replace(pinned, "v1.0.0", "latest!", 1), sumLine, false},
		{"garbage", nothing, pinned + "garbage\n", sumLine, false},
		{"garbage among the sums", nothing, pinned, sumLine + "garbage\n", false},
		{"another content than the pinned one", answers(t, 200, "module example.org/suite\n"), pinned, sumLine, false},
		{"a proxy's answer that is no module", answers(t, 200, "<html>"), pinned, "", false},
		{"a proxy's address that is none", "::", pinned, sumLine, false},
		{"a compiler that is not there", nothing, strings.Replace(pinned, "go 1.25.0", "go 1.999", 1), sumLine, false},
	} {
		t.Run(test.says, func(t *testing.T) {
			t.Setenv("GOTOOLCHAIN", "local")
			err := fetchFrom(t, test.proxy, test.mod, test.sum)
			var unfetched *Unfetched
			if err == nil || errors.As(err, &unfetched) != test.unfetched {
				t.Fatalf("unfetched should be %v: %v", test.unfetched, err)
			}
		})
	}
}

func TestACacheThatCannotBeWrittenIsNoFaultOfTheNetwork(t *testing.T) {
	for _, fault := range []string{
		"example.org/suite@v1.0.0: open /cache/x: permission denied",
		"example.org/suite@v1.0.0: write /cache/x: no space left on device",
		"example.org/suite@v1.0.0: verifying module: checksum mismatch\n\treading https://a/b: 404 Not Found",
	} {
		if areOfTheNetwork([]string{fault}) || areOfTheNetwork([]string{"dial tcp: no such host", fault}) {
			t.Errorf("%s", fault)
		}
	}
	if areOfTheNetwork(nil) {
		t.Error("a fault of which nothing is said is one of the network")
	}
}

func TestWhatGitSaysBelongsToItsLine(t *testing.T) {
	said := "go: downloading a v1\ngo: example.org/suite@v1.0.0: git ls-remote -q origin: exit status 128:\n" +
		"\tfatal: unable to access 'https://example.org/suite/': Could not resolve host: example.org\n"
	faults, err := downloadFaults(`{"Path": "a", "Version": "v1"}{"Path": "b", "Error": "dial tcp: no"}`, said)
	if err != nil || len(faults) != 2 || faults[0] != "dial tcp: no" || !areOfTheNetwork(faults) {
		t.Fatalf("%q %v", faults, err)
	}
	if _, err := downloadFaults("no JSON", ""); err == nil {
		t.Fatal("taken for an answer")
	}
}

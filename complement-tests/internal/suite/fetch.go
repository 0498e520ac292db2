package suite

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// Unfetched is the error of a suite whose source is not to be had: go.mod and go.sum are in order, and the module
// proxy or the network does not hand out what they name. It is the only reason to leave the suite out.
type Unfetched struct{ Said string }

func (e *Unfetched) Error() string {
	return "neither the module proxy nor the network hands out its source:\n" + e.Said
}

// fetch brings the modules that a module requires into the module cache.
func fetch(ctx context.Context, module string) error {
	// Read apart, so that what is wrong with the file is not taken for a fault of the proxy.
	text, err := goCommand(ctx, module, "mod", "edit", "-json")
	if err != nil {
		return err
	}
	var mod struct {
		Require []struct{ Path, Version string }
	}
	if err := json.Unmarshal([]byte(text), &mod); err != nil {
		return fmt.Errorf("go mod edit: %w", err)
	}
	output, err := goCommand(ctx, module, "mod", "download", "-json")
	if err == nil {
		return nil
	}
	var said *goError
	if !errors.As(err, &said) {
		return err
	}
	faults, readErr := downloadFaults(output, said.said)
	if readErr != nil || !areOfTheNetwork(faults) {
		return errors.Join(fmt.Errorf("%w%s", err, strings.Join(faults, "\n")), readErr)
	}
	sums, err := readSums(filepath.Join(module, "go.sum"))
	if err != nil {
		return err
	}
	for _, required := range mod.Require {
		// What has a sum was there once; a proxy has no version that is only mistyped.
		if !sums[required.Path+" "+required.Version+"/go.mod"] {
			return fmt.Errorf("go.mod requires %s %s, of which go.sum knows nothing and which cannot be fetched: %s",
				required.Path, required.Version, strings.Join(faults, "\n"))
		}
	}
	return &Unfetched{Said: strings.Join(faults, "\n")}
}

// readSums reads which modules a go.sum knows; one that is not there knows none.
func readSums(file string) (map[string]bool, error) {
	text, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	sums := map[string]bool{}
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) != 3 || !strings.HasPrefix(fields[2], "h1:") {
			return nil, fmt.Errorf("%s: no sum of a module: %q", file, line)
		}
		sums[fields[0]+" "+fields[1]] = true
	}
	return sums, nil
}

// downloadFaults takes from go mod download -json what it could not do: an Error in an object for each module, or
// plain lines, where it does not come as far as that. What follows a line indented belongs to it.
func downloadFaults(output, said string) ([]string, error) {
	var faults []string
	for objects := json.NewDecoder(strings.NewReader(output)); ; {
		var module struct{ Error string }
		err := objects.Decode(&module)
		if err == io.EOF {
			break
		}
		if err != nil {
			return faults, fmt.Errorf("go mod download: %w", err)
		}
		if module.Error != "" {
			faults = append(faults, module.Error)
		}
	}
	for line := range strings.Lines(said) {
		line = strings.TrimRight(line, "\n")
		switch {
		case line == "" || strings.HasPrefix(line, "go: downloading "):
		case strings.HasPrefix(line, "\t") && len(faults) > 0:
			faults[len(faults)-1] += "\n" + line
		default:
			faults = append(faults, line)
		}
	}
	return faults, nil
}

// The words of go and git for what is not there or does not answer.
var networkWords = regexp.MustCompile(strings.Join([]string{
	`module lookup disabled by GOPROXY=off`,
	`reading https?://[^ ]+: (4|5)\d\d `,
	`reading file://[^ ]+: no such file or directory`,
	`\bdial (tcp|udp)\b`, `no such host`, `connection refused`, `connection reset`, `i/o timeout`, `TLS handshake timeout`,
	`Client\.Timeout exceeded`, `network is unreachable`, `Get "https?://[^"]+": (unexpected )?EOF`,
	`Could not resolve host`, `Failed to connect to`, `Couldn't connect to server`, `Connection timed out`,
	`"git": executable file not found`,
}, "|"))

// areOfTheNetwork says that there are faults, and that each is one of the proxy or the network.
func areOfTheNetwork(faults []string) bool {
	for _, fault := range faults {
		// A fault of the checksum is never one of the network, whatever else is said in it.
		if !networkWords.MatchString(fault) || strings.Contains(fault, "mismatch") || strings.Contains(fault, "SECURITY ERROR") {
			return false
		}
	}
	return len(faults) > 0
}

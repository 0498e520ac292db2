package engine

import (
	"io"
	"os"

	"complement-tests/internal/stdcopy"
)

// Logs writes all that the container has written to the streams that are picked, as frames of package stdcopy.
func (e *Engine) Logs(name string, to io.Writer, stdout, stderr bool) error {
	container, err := e.Container(name)
	if err != nil {
		return err
	}
	file, err := os.Open(container.logFile())
	if os.IsNotExist(err) {
		return nil // it never ran
	}
	if err != nil {
		return err
	}
	defer file.Close()
	return stdcopy.Copy(to, file, func(stream byte) bool {
		return stream == stdcopy.Stdout && stdout || stream == stdcopy.Stderr && stderr
	})
}

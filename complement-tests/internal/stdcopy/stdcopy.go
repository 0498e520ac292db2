// Package stdcopy writes and reads the frames that container logs are kept in and served as: a byte that names the
// stream, three zero bytes, the length as a 32-bit big-endian number, the data.
package stdcopy

import (
	"encoding/binary"
	"fmt"
	"io"
	"sync"
)

// The streams of a program.
const (
	Stdout byte = 1
	Stderr byte = 2
)

const headerSize = 8

// Log writes the streams of one program as frames to one writer, in the order of their writes.
type Log struct {
	mu sync.Mutex
	to io.Writer
}

// NewLog returns a log that writes to w.
func NewLog(w io.Writer) *Log { return &Log{to: w} }

// Stream returns the writer of one stream; each of its writes becomes one frame.
func (l *Log) Stream(stream byte) io.Writer { return &streamWriter{log: l, stream: stream} }

type streamWriter struct {
	log    *Log
	stream byte
}

func (s *streamWriter) Write(data []byte) (int, error) {
	if len(data) == 0 {
		return 0, nil
	}
	frame := make([]byte, headerSize, headerSize+len(data))
	frame[0] = s.stream
	binary.BigEndian.PutUint32(frame[4:], uint32(len(data)))
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	if _, err := s.log.to.Write(append(frame, data...)); err != nil {
		return 0, err
	}
	return len(data), nil
}

// Copy copies the frames of the streams that keep accepts from r to w. A frame that is cut off at the end, as by a
// program that is still writing, ends the copy without an error.
func Copy(w io.Writer, r io.Reader, keep func(stream byte) bool) error {
	for {
		header := make([]byte, headerSize)
		if _, err := io.ReadFull(r, header); err == io.EOF || err == io.ErrUnexpectedEOF {
			return nil
		} else if err != nil {
			return err
		}
		if header[0] != Stdout && header[0] != Stderr {
			return fmt.Errorf("stdcopy: no stream has the number %d", header[0])
		}
		data := make([]byte, binary.BigEndian.Uint32(header[4:]))
		if _, err := io.ReadFull(r, data); err == io.EOF || err == io.ErrUnexpectedEOF {
			return nil
		} else if err != nil {
			return err
		}
		if keep(header[0]) {
			if _, err := w.Write(append(header, data...)); err != nil {
				return err
			}
		}
	}
}

package stdcopy

import (
	"bytes"
	"io"
	"testing"
)

func TestFramesHaveTheFormThatDockerClientsRead(t *testing.T) {
	var file bytes.Buffer
	io.WriteString(NewLog(&file).Stream(Stderr), "hey")
	if want := "\x02\x00\x00\x00\x00\x00\x00\x03hey"; file.String() != want {
		t.Fatalf("%q, want %q", file.String(), want)
	}
}

func TestStreamsCanBePicked(t *testing.T) {
	var file, picked bytes.Buffer
	log := NewLog(&file)
	io.WriteString(log.Stream(Stdout), "out")
	io.WriteString(log.Stream(Stderr), "err")
	file.WriteString("\x01\x00\x00\x00\x00\x00\x00\xffcut off")
	if err := Copy(&picked, &file, func(stream byte) bool { return stream == Stdout }); err != nil {
		t.Fatal(err)
	}
	if want := "\x01\x00\x00\x00\x00\x00\x00\x03out"; picked.String() != want {
		t.Fatalf("%q, want %q", picked.String(), want)
	}
}

func TestWhatIsNoLogIsRefused(t *testing.T) {
	if err := Copy(io.Discard, bytes.NewBufferString("plain text, no frames"), func(byte) bool { return true }); err == nil {
		t.Fatal("plain text was taken for frames")
	}
}

package engine

import "fmt"

// Kind says what sort of mistake an error is, so that a front can answer with the right status.
type Kind int

// The kinds of errors.
const (
	NotFound    Kind = iota // no such image, container or network
	Conflict                // a name that is taken, or a state that does not allow it
	BadRequest              // what is asked for makes no sense
	Unsupported             // what is asked for makes sense, and is not done here
)

// Error is an error with its kind. Errors of other types are faults of the machine or the engine.
type Error struct {
	Kind    Kind
	Message string
}

func (e *Error) Error() string { return e.Message }

func fail(kind Kind, format string, values ...any) error {
	return &Error{Kind: kind, Message: fmt.Sprintf(format, values...)}
}

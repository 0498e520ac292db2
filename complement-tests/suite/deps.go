// Package suite pins the version of Complement, Matrix's conformance suite, that vatra is measured by.
//
// Nothing here is compiled into a program. The blank imports keep the suite's module, and all that its tests import, in
// go.mod and go.sum, so that its packages are compiled as they were published. It is a module of its own so that the
// shim and the runner depend on nothing.
package suite

import (
	_ "github.com/matrix-org/complement"
	_ "github.com/matrix-org/complement/federation"
)

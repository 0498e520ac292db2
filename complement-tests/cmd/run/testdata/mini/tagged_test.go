//go:build !mini_drops

package mini

import "testing"

func TestZLast(t *testing.T) {}

package api

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"
)

// Listen serves on a unix socket until the context is done or, with a timeout, nobody has asked for anything for that
// long. The socket is readable by its owner only: whoever may speak to it may run programs as root.
func (s *Server) Listen(ctx context.Context, socket string, idle time.Duration) error {
	if len(socket) > 107 {
		return fmt.Errorf("the path of a unix socket has at most 107 bytes: %s", socket)
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	if err := os.Chmod(socket, 0o600); err != nil {
		listener.Close()
		return err
	}
	server := &http.Server{Handler: s}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case err := <-served:
			return err
		case <-ctx.Done():
			return errors.Join(server.Close(), ignoreClosed(<-served))
		case <-tick.C:
			if idle > 0 && s.Idle() > idle {
				return errors.Join(server.Close(), ignoreClosed(<-served))
			}
		}
	}
}

func ignoreClosed(err error) error {
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

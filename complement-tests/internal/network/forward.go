package network

import (
	"io"
	"net"
	"net/netip"
	"sync"
	"time"
)

// Forward is a port of 127.0.0.1 that leads to a port of a container.
type Forward struct {
	// Port is the port on 127.0.0.1, chosen by the system.
	Port uint16

	listener net.Listener
	target   string

	mu     sync.Mutex
	conns  map[net.Conn]struct{}
	closed bool
}

// NewForward opens a port.
func NewForward(target netip.AddrPort) (*Forward, error) {
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	f := &Forward{
		Port: listener.Addr().(*net.TCPAddr).AddrPort().Port(), listener: listener, target: target.String(),
		conns: map[net.Conn]struct{}{},
	}
	go f.accept()
	return f, nil
}

// Close closes the port and cuts every connection.
func (f *Forward) Close() {
	f.listener.Close()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	for conn := range f.conns {
		conn.Close()
	}
}

func (f *Forward) accept() {
	for {
		client, err := f.listener.Accept()
		if err != nil {
			return // closed
		}
		go f.carry(client)
	}
}

func (f *Forward) carry(client net.Conn) {
	if !f.add(client) {
		return
	}
	defer f.drop(client)
	server, err := net.DialTimeout("tcp4", f.target, 10*time.Second)
	if err != nil {
		_ = client.(*net.TCPConn).SetLinger(0) // a reset, as if nothing listened
		return
	}
	if !f.add(server) {
		return
	}
	defer f.drop(server)
	var both sync.WaitGroup
	both.Go(func() { pour(server, client) })
	both.Go(func() { pour(client, server) })
	both.Wait()
}

// pour copies until the source ends, and passes the end on; an error cuts both.
func pour(to, from net.Conn) {
	if _, err := io.Copy(to, from); err != nil {
		to.Close()
		from.Close()
		return
	}
	_ = to.(*net.TCPConn).CloseWrite()
}

func (f *Forward) add(conn net.Conn) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		conn.Close()
		return false
	}
	f.conns[conn] = struct{}{}
	return true
}

func (f *Forward) drop(conn net.Conn) {
	conn.Close()
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.conns, conn)
}

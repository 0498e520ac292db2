package network

import (
	"encoding/binary"
	"net"
	"net/netip"
	"strings"
)

// Parts of the DNS protocol (RFC 1035, section 4.1).
const (
	dnsHeader     = 12
	flagResponse  = 0x8000
	flagRecursion = 0x0100 // copied from the question
	flagAvailable = 0x0080
	opcodeMask    = 0x7800
	rcodeNotImpl  = 4
	rcodeNoName   = 3
	typeA         = 1
	classIN       = 1
	timeToLive    = 0
)

// nameServer answers for the names of one network, on UDP port 53 of the bridge.
type nameServer struct {
	conn    *net.UDPConn
	resolve func(string) (netip.Addr, bool)
}

func serveNames(at netip.Addr, resolve func(string) (netip.Addr, bool)) (*nameServer, error) {
	conn, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(at, 53)))
	if err != nil {
		return nil, err
	}
	server := &nameServer{conn: conn, resolve: resolve}
	go server.serve()
	return server, nil
}

func (s *nameServer) close() { s.conn.Close() }

func (s *nameServer) serve() {
	packet := make([]byte, 1500)
	for {
		length, from, err := s.conn.ReadFromUDPAddrPort(packet)
		if err != nil {
			return // closed
		}
		if reply := s.answer(packet[:length]); reply != nil {
			_, _ = s.conn.WriteToUDPAddrPort(reply, from)
		}
	}
}

// answer returns the reply to a packet, or nil if it is no question.
func (s *nameServer) answer(packet []byte) []byte {
	if len(packet) < dnsHeader {
		return nil
	}
	flags := binary.BigEndian.Uint16(packet[2:])
	if flags&flagResponse != 0 || binary.BigEndian.Uint16(packet[4:]) != 1 {
		return nil
	}
	name, end, ok := question(packet)
	if !ok {
		return nil
	}
	kind, class := binary.BigEndian.Uint16(packet[end-4:]), binary.BigEndian.Uint16(packet[end-2:])

	reply := append([]byte{}, packet[:end]...)
	flags = flagResponse | flagAvailable | flags&(flagRecursion|opcodeMask)
	address, known := s.resolve(name)
	switch {
	case flags&opcodeMask != 0:
		flags |= rcodeNotImpl
	case !known:
		flags |= rcodeNoName
	}
	answers := uint16(0)
	if known && kind == typeA && class == classIN && flags&opcodeMask == 0 {
		answers = 1
		reply = append(reply, 0xc0, dnsHeader) // the name: a pointer to the question's
		reply = binary.BigEndian.AppendUint16(reply, typeA)
		reply = binary.BigEndian.AppendUint16(reply, classIN)
		reply = binary.BigEndian.AppendUint32(reply, timeToLive)
		reply = binary.BigEndian.AppendUint16(reply, 4)
		reply = append(reply, address.AsSlice()...)
	}
	binary.BigEndian.PutUint16(reply[2:], flags)
	binary.BigEndian.PutUint16(reply[6:], answers)
	binary.BigEndian.PutUint16(reply[8:], 0)  // no authority
	binary.BigEndian.PutUint16(reply[10:], 0) // nothing additional
	return reply
}

// question reads the name that is asked for; end is the offset behind the question.
func question(packet []byte) (name string, end int, ok bool) {
	var labels []string
	at := dnsHeader
	for at < len(packet) {
		length := int(packet[at])
		at++
		if length == 0 {
			return strings.ToLower(strings.Join(labels, ".")), at + 4, at+4 <= len(packet)
		}
		if length > 63 || at+length > len(packet) {
			return "", 0, false
		}
		labels = append(labels, string(packet[at:at+length]))
		at += length
	}
	return "", 0, false
}

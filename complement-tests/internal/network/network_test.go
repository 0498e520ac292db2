package network

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"
)

// ask builds a question for a name.
func ask(kind uint16, labels ...string) []byte {
	packet := []byte{0x12, 0x34, 0x01, 0x00, 0, 1, 0, 0, 0, 0, 0, 1}
	for _, label := range labels {
		packet = append(append(packet, byte(len(label))), label...)
	}
	packet = binary.BigEndian.AppendUint16(append(packet, 0), kind)
	packet = binary.BigEndian.AppendUint16(packet, classIN)
	return append(packet, 0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0) // what EDNS adds
}

func TestNamesAreAnswered(t *testing.T) {
	address := netip.MustParseAddr("10.213.7.2")
	server := &nameServer{resolve: func(name string) (netip.Addr, bool) { return address, name == "hs1" }}
	for _, test := range []struct {
		says    string
		kind    uint16
		labels  []string
		rcode   byte
		answers uint16
	}{
		{"a name that is known, in whatever case", typeA, []string{"HS1"}, 0, 1},
		{"no IPv6 address, but the name exists", 28, []string{"hs1"}, 0, 0},
		{"a service of a known name does not exist", 33, []string{"_matrix-fed", "_tcp", "hs1"}, rcodeNoName, 0},
		{"the rest of the world does not exist", typeA, []string{"example", "org"}, rcodeNoName, 0},
	} {
		reply := server.answer(ask(test.kind, test.labels...))
		if reply == nil || reply[0] != 0x12 || reply[1] != 0x34 || reply[2]&0x80 == 0 {
			t.Fatalf("%s: no reply: %x", test.says, reply)
		}
		if rcode, answers := reply[3]&0xf, binary.BigEndian.Uint16(reply[6:]); rcode != test.rcode || answers != test.answers {
			t.Errorf("%s: code %d, %d answers", test.says, rcode, answers)
		}
		if got, ok := netip.AddrFromSlice(reply[len(reply)-4:]); test.answers == 1 && (!ok || got != address) {
			t.Errorf("%s: %v", test.says, got)
		}
	}
}

func TestWhatIsNoQuestionIsNotAnswered(t *testing.T) {
	server := &nameServer{resolve: func(string) (netip.Addr, bool) { return netip.Addr{}, false }}
	question := ask(typeA, "hs1")
	for cut := range len(question) - 11 {
		if server.answer(question[:cut]) != nil {
			t.Fatalf("%d bytes of a question were answered", cut)
		}
	}
	question[2] |= 0x80
	if server.answer(question) != nil {
		t.Fatal("an answer was answered")
	}
}

func TestAForwardedPortCarriesBothWaysAndEndsWithItsForward(t *testing.T) {
	echo, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer echo.Close()
	go func() {
		for {
			conn, err := echo.Accept()
			if err != nil {
				return
			}
			go func() {
				text, _ := io.ReadAll(conn) // until the client has closed its half
				conn.Write(text)
				conn.Close()
			}()
		}
	}()
	forward, err := NewForward(netip.MustParseAddrPort(echo.Addr().String()))
	if err != nil {
		t.Fatal(err)
	}
	at := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), forward.Port).String()
	conn, err := net.Dial("tcp4", at)
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(conn, "hello")
	conn.(*net.TCPConn).CloseWrite()
	if text, err := io.ReadAll(conn); err != nil || string(text) != "hello" {
		t.Fatalf("%q %v", text, err)
	}

	open, err := net.Dial("tcp4", at)
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(20 * time.Millisecond)
	forward.Close()
	open.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := open.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("an open connection outlives the forward: %v", err)
	}
	if _, err := net.Dial("tcp4", at); err == nil {
		t.Fatal("the port is still open")
	}
}

func TestNetworksAreApart(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("bridges need root")
	}
	nobody := func(string) (netip.Addr, bool) { return netip.Addr{}, false }
	one, err := New(nobody)
	if err != nil {
		t.Fatal(err)
	}
	two, err := New(nobody)
	if err != nil {
		t.Fatal(err)
	}
	if orphans, err := Orphans(os.Getpid()); err != nil || len(orphans) > 0 {
		t.Fatalf("networks in use are no orphans: %v %v", orphans, err)
	}
	if one.Gateway() == two.Gateway() || one.slot.bridge() == two.slot.bridge() {
		t.Fatalf("two networks are one: %v %v", one.Gateway(), two.Gateway())
	}
	first, err := one.Reserve()
	if err != nil {
		t.Fatal(err)
	}
	second, _ := one.Reserve()
	one.Release(first)
	if again, _ := one.Reserve(); first == second || again != first {
		t.Fatalf("%v %v %v", first, second, again)
	}
	for _, network := range []*Network{one, two} {
		name := network.slot.bridge()
		if err := network.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := net.InterfaceByName(name); err == nil {
			t.Fatalf("%s is left", name)
		}
	}
}

func TestWhatAKilledRunLeftIsClearedAway(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("bridges need root")
	}
	network, err := New(func(string) (netip.Addr, bool) { return netip.Addr{}, false })
	if err != nil {
		t.Fatal(err)
	}
	bridge := network.slot.bridge()
	network.names.close()
	network.slot.release() // as the kernel does when a process is killed; the bridge stays
	if orphans, err := Orphans(os.Getpid()); err != nil || !slices.Contains(orphans, bridge) {
		if _, err := net.InterfaceByName(bridge); err != nil {
			t.Skipf("another run took the slot meanwhile, and cleared %s away", bridge)
		}
		t.Fatalf("%v %v", orphans, err)
	}
	if orphans, err := Orphans(os.Getpid() + 1); err != nil || slices.Contains(orphans, bridge) {
		t.Fatalf("taken for what another process left: %v %v", orphans, err)
	}
	again, err := New(func(string) (netip.Addr, bool) { return netip.Addr{}, false })
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if again.slot.bridge() != bridge {
		t.Skipf("another run took the slot meanwhile: %s, not %s", again.slot.bridge(), bridge)
	}
}

func TestWhatAKilledRunLeftIsSweptWhereverItIs(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("bridges need root")
	}
	nobody := func(string) (netip.Addr, bool) { return netip.Addr{}, false }
	dead, err := New(nobody)
	if err != nil {
		t.Fatal(err)
	}
	living, err := New(nobody)
	if err != nil {
		t.Fatal(err)
	}
	defer living.Close()
	dead.names.close()
	dead.slot.release() // as the kernel does when a process is killed; the bridge stays
	if err := Sweep(); err != nil {
		t.Fatal(err)
	}
	if orphans, err := Orphans(os.Getpid()); err != nil || len(orphans) > 0 {
		t.Fatalf("left: %v %v", orphans, err)
	}
	if _, err := net.InterfaceByName(living.slot.bridge()); err != nil {
		t.Fatalf("what is in use was swept: %v", err)
	}
}

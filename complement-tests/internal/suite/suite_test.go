package suite

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func write(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestResultsComeBackAsTheyWereWritten(t *testing.T) {
	results := Results{
		{"tests/csapi", "TestB"}: Fail, {"tests/csapi", "TestB/GET_<a>"}: Pass, {"tests", "TestA"}: Skip,
	}
	file := write(t, "")
	if err := results.Write(file); err != nil {
		t.Fatal(err)
	}
	want := `{"package":"tests","test":"TestA","outcome":"skip"}
{"package":"tests/csapi","test":"TestB","outcome":"fail"}
{"package":"tests/csapi","test":"TestB/GET_<a>","outcome":"pass"}
`
	if text, _ := os.ReadFile(file); string(text) != want {
		t.Fatalf("%s", text)
	}
	read, err := ReadResults(file)
	if err != nil || len(read) != 3 || read[Test{"tests", "TestA"}] != Skip {
		t.Fatalf("%v %v", read, err)
	}
	read.Replace([]string{"tests/csapi"}, Results{{"tests/csapi", "TestC"}: Pass})
	if len(read) != 2 {
		t.Fatalf("%v", read)
	}
}

func TestAListWithAMistakeIsRefused(t *testing.T) {
	for _, text := range []string{"TestAlone\n", "tests TestA\ntests TestA\n"} {
		if _, err := ReadExpected(write(t, text)); err == nil {
			t.Errorf("%q was taken", text)
		}
	}
}

func TestWhatIsExpectedAndWhatIsNews(t *testing.T) {
	list, err := ReadExpected(write(t, "# Why.\np TestWhole\np TestPart/one\n\n# More.\np TestSkips\np TestGone\nq TestOther\n"))
	if err != nil {
		t.Fatal(err)
	}
	results := Results{
		{"p", "TestWhole"}: Pass, {"p", "TestWhole/sub"}: Pass,
		{"p", "TestPart"}: Fail, {"p", "TestPart/one"}: Pass, {"p", "TestPart/two"}: Pass, {"p", "TestPart/three"}: Fail,
		{"p", "TestSkips"}: Skip, {"p", "TestNew"}: Pass, {"p", "TestNew/sub"}: Pass,
	}
	if got := list.Failing(results, []string{"p"}); !slices.Equal(got, []Test{{"p", "TestSkips"}, {"p", "TestGone"}}) {
		t.Errorf("failing: %v", got)
	}
	if got := list.Failing(results, nil); len(got) != 3 {
		t.Errorf("failing: %v", got)
	}
	news := list.News(results)
	if !slices.Equal(news, []Test{{"p", "TestNew"}, {"p", "TestPart/two"}}) {
		t.Errorf("news: %v", news)
	}
	if got := Pattern(list.Tops()[:3]); got != "^(TestGone|TestPart|TestSkips)$" {
		t.Errorf("pattern: %s", got)
	}
	if err := list.Add(append(news, Test{"p", "TestPart"})); err != nil {
		t.Fatal(err)
	}
	want := "# Why.\np TestGone\np TestNew\np TestPart\np TestPart/one\np TestPart/two\np TestSkips\np TestWhole\nq TestOther\n"
	if text, _ := os.ReadFile(list.file); string(text) != want {
		t.Errorf("a line went, or came twice: %s", text)
	}
}

func TestTheTableStandsBetweenItsMarkers(t *testing.T) {
	file := write(t, "before\n"+tableBegin+"\nold\n"+tableEnd+"\nafter\n")
	table := Table(Results{{"p", "TestA"}: Pass, {"p", "TestB"}: Fail, {"p", "TestB/x"}: Pass, {"q", "TestC"}: Skip})
	if err := WriteTable(file, table); err != nil {
		t.Fatal(err)
	}
	text, _ := os.ReadFile(file)
	for _, want := range []string{"before\n", "| p | 1 / 2 | 1 | 0 | 1 / 1 | 0 | 0 |", "| q | 0 / 1 | 0 | 1 |", "| **all** | 1 / 3 | 1 | 1 |", "\nafter\n"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("%q is missing in %s", want, text)
		}
	}
	if strings.Contains(string(text), "old") {
		t.Error("the old table is left")
	}
	if err := WriteTable(write(t, "no markers"), table); err == nil {
		t.Error("a file without markers was taken")
	}
}

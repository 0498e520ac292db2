//! Putting, removing, searching, and what a crash and damage leave.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use super::*;

const MEMORY: usize = 1 << 20;

fn document(item: u64, text: &str) -> Document {
    Document {
        item,
        source: item,
        room: 1,
        sender: 7,
        kind: 0,
        time: item,
        text: text.to_owned(),
    }
}

fn open(folder: &Path) -> Index {
    Index::open(folder, MEMORY).unwrap()
}

fn put(index: &Index, documents: impl IntoIterator<Item = Document>) {
    let changes: Vec<Change> = documents.into_iter().map(Change::Put).collect();
    index.change(&changes).unwrap();
}

fn query(text: &str) -> Query {
    Query {
        terms: Terms::read(text).unwrap(),
        kinds: vec![0],
        rooms: vec![1],
        senders: None,
        order: Order::Recent,
        after: None,
        limit: 100,
    }
}

fn found(index: &Index, text: &str) -> Vec<u64> {
    let found = index.search(&query(text)).unwrap();
    found.hits.into_iter().map(|hit| hit.item).collect()
}

#[test]
fn words_of_every_script_are_found() {
    let folder = tempfile::tempdir().unwrap();
    let index = open(folder.path());
    let texts = [
        (1, "Die Straße nach Café Größenwahn"),
        (2, "山田太郎は東京都に住んでいます"),
        (3, "학교에서 공부합니다"),
        (4, "ฉันรักประเทศไทย"),
        (5, "我喜欢在北京大学学习"),
        (6, "Привет, ёжик"),
        (7, "السَّلامُ عليكم"),
        (8, "Timișoara e în România"),
    ];
    put(&index, texts.map(|(item, text)| document(item, text)));
    index.commit("").unwrap();
    for (text, expected) in [
        ("strasse CAFE", vec![1]),
        ("größenwahn", vec![1]),
        ("grossenwahn", vec![1]),
        ("太郎", vec![2]),
        ("京都", vec![2]),
        ("東京都に住", vec![2]),
        ("東都", vec![]),
        ("田", vec![2]),
        ("학교", vec![3]),
        ("ประเทศ", vec![4]),
        ("北京大学", vec![5]),
        ("学", vec![5]),
        ("北京学", vec![]),
        ("ПРИВЕТ ежик", vec![6]),
        ("السلام", vec![7]),
        ("timisoara romania", vec![8]),
        ("timisoara strasse", vec![]),
        ("timi", vec![]),
    ] {
        assert_eq!(found(&index, text), expected, "{text}");
    }
}

#[test]
fn a_document_replaces_its_items_old_one_and_is_removed_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let index = open(folder.path());
    put(&index, [document(1, "first words"), document(2, "words")]);
    // In the same commit.
    put(
        &index,
        [Document {
            source: 9,
            ..document(1, "second words")
        }],
    );
    index.commit("").unwrap();
    assert_eq!(found(&index, "first"), [0; 0]);
    assert_eq!(found(&index, "words"), [2, 1]);
    assert_eq!(index.replaced_by(9).unwrap(), [1]);
    index
        .change(&[Change::Remove(1), Change::Remove(5)])
        .unwrap();
    assert_eq!(found(&index, "words"), [2, 1], "not before the commit");
    index.commit("").unwrap();
    assert_eq!(found(&index, "words"), [2]);
}

#[test]
fn only_what_is_asked_for_is_looked_at() {
    let folder = tempfile::tempdir().unwrap();
    let index = open(folder.path());
    put(
        &index,
        [
            document(1, "word"),
            Document {
                room: 2,
                ..document(2, "word")
            },
            Document {
                kind: 1,
                ..document(3, "word")
            },
            Document {
                sender: 8,
                ..document(4, "word")
            },
        ],
    );
    index.commit("").unwrap();
    assert_eq!(found(&index, "word"), [4, 1]);
    let by = |query: Query| {
        let found = index.search(&query).unwrap();
        let items: Vec<u64> = found.hits.iter().map(|hit| hit.item).collect();
        assert_eq!(found.total, u64::try_from(items.len()).unwrap());
        items
    };
    let of_eight = Query {
        senders: Some(vec![8]),
        ..query("word")
    };
    assert_eq!(by(of_eight), [4]);
    let wide = Query {
        kinds: vec![0, 1],
        rooms: vec![2, 1],
        ..query("word")
    };
    assert_eq!(by(wide), [4, 3, 2, 1]);
    let nowhere = Query {
        rooms: Vec::new(),
        ..query("word")
    };
    assert_eq!(by(nowhere), [0; 0]);
}

#[test]
fn pages_follow_each_other_in_both_orders() {
    let folder = tempfile::tempdir().unwrap();
    let index = open(folder.path());
    for item in 1..=25 {
        let repeated = usize::try_from(item % 5).unwrap() + 1;
        put(&index, [document(item, &"word ".repeat(repeated))]);
        if item % 7 == 0 {
            // Several segments.
            index.commit("").unwrap();
        }
    }
    index.commit("").unwrap();
    for order in [Order::Recent, Order::Rank] {
        let mut all = Vec::new();
        let mut after = None;
        loop {
            let page = Query {
                order,
                after,
                limit: 4,
                ..query("word")
            };
            let page = index.search(&page).unwrap();
            assert_eq!(page.total, 25);
            let Some(last) = page.hits.last() else { break };
            after = Some(last.place(order));
            all.extend(page.hits);
        }
        assert_eq!(all.len(), 25);
        match order {
            Order::Recent => assert!(all.is_sorted_by(|one, two| one.item > two.item)),
            Order::Rank => {
                assert!(all.is_sorted_by(|one, two| one.place(order) > two.place(order)));
                assert!(all[0].score > all[24].score);
            }
        }
    }
}

#[test]
fn a_rank_does_not_depend_on_other_texts() {
    let rank = |others: u64| {
        let folder = tempfile::tempdir().unwrap();
        let index = open(folder.path());
        put(&index, [document(1, "a secret word")]);
        put(
            &index,
            (0..others).map(|item| Document {
                room: 2,
                ..document(10 + item, "secret secret")
            }),
        );
        index.commit("").unwrap();
        index.search(&query("secret")).unwrap().hits[0].score
    };
    assert!((rank(0) - rank(50)).abs() < f32::EPSILON);
}

#[test]
fn a_note_is_as_old_as_what_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let index = open(folder.path());
    assert_eq!(index.note(), None);
    put(&index, [document(1, "kept")]);
    index.commit("one").unwrap();
    put(&index, [document(2, "lost")]);
    assert_eq!(index.pending_bytes(), 4);
    index.close();
    assert!(matches!(index.commit("two"), Err(IndexError::Closed)));
    let index = open(folder.path());
    assert_eq!(index.note(), Some("one"));
    assert_eq!(found(&index, "kept"), [1]);
    assert_eq!(found(&index, "lost"), [0; 0]);
}

#[test]
fn damage_is_told_and_cleared() {
    let folder = tempfile::tempdir().unwrap();
    let index = open(folder.path());
    put(&index, [document(1, "word")]);
    index.commit("one").unwrap();
    index.close();
    drop(index);

    // A bit of a file with postings.
    let files = fs::read_dir(folder.path()).unwrap();
    let mut files = files.map(|entry| entry.unwrap().path());
    let postings = files.find(|path| path.extension().is_some_and(|it| it == "term"));
    let postings = postings.unwrap();
    let mut bytes = fs::read(&postings).unwrap();
    bytes[0] ^= 1;
    fs::write(&postings, bytes).unwrap();
    let index = open(folder.path());
    assert!(matches!(index.verify(), Err(IndexError::Damaged(_))));
    index.close();
    drop(index);

    fs::write(folder.path().join("meta.json"), "{").unwrap();
    let opened = Index::open(folder.path(), MEMORY);
    assert!(matches!(opened, Err(IndexError::Damaged(_))));
    drop(opened);
    Index::clear(folder.path()).unwrap();
    let index = open(folder.path());
    assert_eq!(index.note(), None);
    index.verify().unwrap();
    assert_eq!(found(&index, "word"), [0; 0]);
}

//! The examples of the documentation work: all ```sql blocks of a file, in order, in a new database.

use shadowpart_tests::*;
use std::io::Write;
use std::process::Stdio;

/// The files with examples that must be there; others in docs/ are run too.
const FILES: &[&str] = &[
    "README.md",
    "docs/reference.md",
    "docs/internals.md",
    "docs/limits.md",
    "docs/howto.md",
];

/// The ```sql blocks of a file, each at the line on which it stands there, so that psql's messages
/// name lines of the file.
fn examples(text: &str) -> String {
    let mut inside = false;
    let mut sql = String::new();
    for line in text.lines() {
        if line.starts_with("```") {
            inside = line == "```sql";
        } else if inside {
            sql.push_str(line);
        }
        sql.push('\n');
    }
    sql
}

/// psql, because each statement must be a transaction of its own.
fn run(server: &Server, database: &str, sql: &str) -> Result<()> {
    let mut child = server
        .tool("psql", database)
        .args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut input = child.stdin.take().context("psql has no standard input")?;
    let sql = sql.to_owned();
    // In a thread: psql may stop reading, or have much to say, before all is written.
    let writer = std::thread::spawn(move || input.write_all(sql.as_bytes()));
    let output = child.wait_with_output()?;
    let written = writer.join();
    let messages = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{messages}");
    ensure!(
        matches!(written, Ok(Ok(()))),
        "not all was read: {messages}"
    );
    Ok(())
}

#[test]
fn examples_work() {
    scenario(Settings::default(), |server| {
        server.tablespace("fast")?;
        let mut files: Vec<_> = FILES
            .iter()
            .map(|file| package().join("..").join(file))
            .collect();
        for entry in std::fs::read_dir(package().join("..").join("docs"))? {
            let path = entry?.path();
            if path.extension().is_some_and(|e| e == "md") && !files.contains(&path) {
                files.push(path);
            }
        }
        for (n, path) in files.iter().enumerate() {
            let name = path.display();
            let text = std::fs::read_to_string(path).with_context(|| format!("read {name}"))?;
            let sql = examples(&text);
            // The files named above have examples; a fence that is spelt otherwise must not hide them.
            ensure!(
                n >= FILES.len() || !sql.trim().is_empty(),
                "{name} has no examples"
            );
            let database = format!("docs_{n}");
            server
                .connect()?
                .run(&format!("CREATE DATABASE {database}"))?;
            run(server, &database, &sql).with_context(|| format!("the examples of {name}"))?;
            server
                .connect()?
                .run(&format!("DROP DATABASE {database} WITH (FORCE)"))?;
        }
        Ok(())
    });
}

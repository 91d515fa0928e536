# Asks four engines the same questions of one recording: DuckDB over Parquet, over NDJSON, and
# SQLite over the recording itself; the fourth answer is lsbuf's. Fails if they differ.
import glob, json, os, sqlite3, sys
import duckdb

world = sys.argv[1]
known = json.load(open(os.path.join(world, "answers.json")))


def over(extension):
    reader = {"parquet": "read_parquet", "ndjson": "read_json"}[extension]

    def ask(table, question):
        files = os.path.join(world, extension, table, "*", "*", "*." + extension)
        assert glob.glob(files), files
        source = f"{reader}('{files}', hive_partitioning = true)"
        return duckdb.sql(question.format(source)).fetchall()[0][0]

    return ask


LAST = "last_sample = (SELECT max(last_sample) FROM {0})"
DUCKDB = {
    "samples": ("sample", "SELECT count(*) FROM {0}"),
    "buffers at the end": ("buffer", "SELECT count(*) FROM {0} WHERE " + LAST),
    "size at the end": ("buffer", "SELECT CAST(sum(size) AS BIGINT) FROM {0} WHERE " + LAST),
    "buffers ever": ("buffer", "SELECT count(DISTINCT buffer) FROM {0}"),
    "fds at the end": ("holder", "SELECT CAST(sum(fd) AS BIGINT) FROM {0} WHERE " + LAST),
    "processes ever": ("process", "SELECT count(DISTINCT process) FROM {0}"),
    "machines": ("process", "SELECT count(DISTINCT machine_id) FROM {0}"),
    "days": ("buffer", "SELECT count(DISTINCT date) FROM {0}"),
}
END = "(SELECT max(id) FROM sample)"
SQLITE = {
    "samples": "SELECT count(*) FROM sample",
    "buffers at the end": f"SELECT count(*) FROM buffer_at WHERE sample = {END}",
    "size at the end": f"SELECT sum(size) FROM buffer_at WHERE sample = {END}",
    "buffers ever": "SELECT count(*) FROM buffer",
    "fds at the end": f"SELECT sum(fd) FROM holder_at WHERE sample = {END}",
    "processes ever": "SELECT count(*) FROM process",
    "machines": "SELECT count(DISTINCT machine_id) FROM boot",
    "days": "SELECT count(DISTINCT date(taken_at / 1000000, 'unixepoch')) FROM buffer_state "
    "JOIN sample ON sample.id = buffer_state.first",
}
recording = sqlite3.connect(f"file:{os.path.join(world, 'r.db')}?mode=ro", uri=True)
differ = False
for question, right in known.items():
    table, sql = DUCKDB[question]
    found = [over("parquet")(table, sql), over("ndjson")(table, sql)]
    found.append(recording.execute(SQLITE[question]).fetchone()[0])
    same = found == [right] * 3
    differ |= not same
    print(f"   {question}: {right}" + ("" if same else f", but parquet, ndjson, sqlite: {found}"))
sys.exit(1 if differ else 0)

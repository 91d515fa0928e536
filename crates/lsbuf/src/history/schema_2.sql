-- What version 2 of the schema added: who made the buffers.

-- A stack, whoever made buffers by it.
CREATE TABLE stack (
    id INTEGER PRIMARY KEY,
    sum INTEGER NOT NULL,
    calls TEXT NOT NULL
) STRICT;
CREATE INDEX stack_sum ON stack (sum);

CREATE TABLE origin (
    id INTEGER PRIMARY KEY, first INTEGER NOT NULL, last INTEGER, class INTEGER,
    sum INTEGER NOT NULL,
    buffer INTEGER NOT NULL REFERENCES buffer,
    born TEXT NOT NULL,
    stack INTEGER REFERENCES stack
) STRICT;
CREATE INDEX origin_of ON origin (buffer);
CREATE INDEX origin_by ON origin (stack);

// CSV as RFC 4180 has it, read piece by piece: cells in quotes hold separators, line ends and doubled quotes.

export const separatorOf = start => {
  const bare = start.replace(/(?<=^|[,;\t\r\n])(?:"[^"]*")+/g, "");  // a name in quotes may hold any of them
  const line = bare.slice(0, bare.search(/[\r\n]|$/));
  const counted = [",", ";", "\t"].map(each => [line.split(each).length, each]);
  return counted.reduce((best, each) => (each[0] > best[0] ? each : best))[1];
};

export class Reader {
  // #closed: how long the cell was when its quotes ended; -1: they have not.
  #separator; #cell = ""; #row = []; #quoted = false; #closed = -1; #return = false;
  constructor(separator) { this.#separator = separator; }

  // The rows that end in this piece.
  read(piece) {
    const rows = [];
    let from = 0;
    const take = to => { this.#cell += piece.slice(from, to); from = to + 1; };
    for (let at = 0; at < piece.length; at++) {
      const letter = piece[at], after = this.#return;
      this.#return = false;
      if (this.#quoted) {
        if (letter === '"') { take(at); this.#quoted = false; this.#closed = this.#cell.length; }
      } else if (letter === '"' && this.#closed === this.#cell.length && from === at) {  // doubled: one of them is meant
        this.#cell += '"'; this.#quoted = true; this.#closed = -1; from = at + 1;
      } else if (letter === '"' && !this.#cell && this.#closed < 0 && from === at) {
        this.#quoted = true; from = at + 1;
      } else if (letter === this.#separator) {
        take(at); this.#end();
      } else if (letter === "\n" && after && !this.#row.length && !this.#cell && from === at) {
        from = at + 1;  // of \r\n, whose \r ended the row
      } else if (letter === "\n" || letter === "\r") {
        take(at);
        const blank = this.#nothing;
        this.#end();
        if (!blank) rows.push(this.#row);
        this.#row = []; this.#return = letter === "\r";
      }
    }
    take(piece.length);
    return rows;
  }

  // What is left when the file ends, as rows.
  finish() {
    if (this.#quoted) throw new Error("The file ends within quotes.");
    return this.#nothing ? [] : this.read("\n");
  }

  get #nothing() { return !this.#row.length && !this.#cell && this.#closed < 0; }

  #end() { this.#row.push(this.#cell); this.#cell = ""; this.#closed = -1; }
}

export const lineOf = (cells, separator) =>
  cells.map(cell => (/["\r\n]/.test(cell) || cell.includes(separator) ? `"${cell.replaceAll('"', '""')}"` : cell))
    .join(separator) + "\n";

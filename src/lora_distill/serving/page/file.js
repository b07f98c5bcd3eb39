// A CSV file through the server: read, labelled and written piece by piece, so that its size does not matter.
import { ask } from "./ask.js";
import { Reader, lineOf, separatorOf } from "./csv.js";

const HEAD = 65536;  // bytes in which the header and its separator are looked for

export const headerOf = async file => {
  const start = new TextDecoder().decode(await file.slice(0, HEAD).arrayBuffer());
  const separator = separatorOf(start);
  const [header] = new Reader(separator).read(start + (file.size > HEAD ? "" : "\n"));
  if (!header) throw new Error("The file has no header: names of columns in its first line.");
  return { header, separator };
};

async function* rowsOf(file, separator, read) {
  const decoder = new TextDecoder("utf-8", { fatal: true }), reader = new Reader(separator), stream = file.stream().getReader();
  for (let bytes = 0; ;) {
    const { value, done } = await stream.read();
    let text;
    try { text = decoder.decode(value, { stream: !done }); } catch { throw new Error("The file is not UTF-8."); }
    yield* reader.read(text);
    if (done) return yield* reader.finish();
    read(bytes += value.length);
  }
}

const unused = (name, header) => (header.includes(name) ? unused(`${name}_predicted`, header) : name);

// Labels the texts of one column of the file, or the pairs of two. `told` hears of the share that is done and the rows that were labelled. Gives the parts of
// the new file, also when it ends early: then the error is in `failed`.
export const labelFile = async ({ file, header, separator, columns, model, signal, told }) => {
  const { max_characters, max_body } = model.limits;
  let most = model.limits.max_texts;  // at once; fewer where these were too many
  const names = ["label", "confidence", ...model.labels.map(label => `probability_${label}`), "problem"];
  const parts = [];  // as Blobs, which a browser may keep on disk
  const put = text => parts.push(new Blob([text]));
  put(lineOf([...header, ...names.map(name => unused(name, header))], separator));
  let share = 0, rows = 0, problems = 0, waiting = [], size = 0;
  const fault = cells => {
    if (cells.length !== header.length) {
      return `has ${cells.length} cells where the header has ${header.length}: ${lineOf(cells, separator).trimEnd()}`;
    }
    if (columns.some(column => !cells[column].trim())) return "has no text";
    return columns.some(column => [...cells[column]].length > max_characters) ? `has more than ${max_characters} characters` : "";
  };
  const textOf = cells => (columns.length > 1 ? { text: cells[columns[0]], text_pair: cells[columns[1]] } : cells[columns[0]]);
  const answer = async asked => {
    for (let part; asked.length;) {
      part = asked.slice(0, most);
      try {
        const { results } = await ask("v1/classify", { texts: part.map(each => textOf(each.cells)) }, signal);
        part.forEach((each, index) => { each.answer = results[index]; });
      } catch (error) {
        if (error.status === 503 && part.length > 1) { most = Math.ceil(part.length / 2); continue; }
        if (error.status !== 413 || part.length > 1) throw error;
        part[0].fault = error.message;
      }
      asked = asked.slice(part.length);
    }
  };
  const flush = async () => {
    const good = waiting.filter(each => !each.fault);
    await answer(good);
    put(waiting.map(({ cells, fault, answer }) => {
      const chances = new Map(answer?.probabilities.map(each => [each.label, each.probability]));
      const found = answer ? [answer.label, answer.confidence, ...model.labels.map(label => chances.get(label))]
        : ["", "", ...model.labels.map(() => "")];
      return lineOf([...header.map((_, index) => cells[index] ?? ""), ...found.map(String), fault], separator);
    }).join(""));
    rows += waiting.length; problems += waiting.filter(each => each.fault).length; waiting = []; size = 0;
    told(share, rows);
  };
  let failed = null;
  try {
    let number = 0;
    for await (const cells of rowsOf(file, separator, bytes => { share = bytes / file.size; })) {
      signal.throwIfAborted();
      if (!number++) continue;  // the header
      const length = columns.reduce((sum, column) => sum + 6 * (cells[column] ?? "").length + 20, 0);  // as JSON writes it, at most
      if (waiting.length >= most || (size && size + length > max_body - 100)) await flush();
      waiting.push({ cells, fault: fault(cells) }); size += length;
    }
    if (waiting.length) await flush();
  } catch (error) { failed = error; }
  return { parts, rows, problems, failed };
};

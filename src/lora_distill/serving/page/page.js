import { KeyMissing, ask, useKey } from "./ask.js";
import { headerOf, labelFile } from "./file.js";

const $ = id => document.getElementById(id);
const MOST_LINES = 200, MOST_BARS = 5;
let model = null, chosen = null;

const element = (name, { className = "", text = "", ...rest } = {}, ...children) => {
  const made = Object.assign(document.createElement(name), { className, ...rest });
  made.append(...(text ? [text] : []), ...children);
  return made;
};
const percent = share => `${(100 * share).toFixed(1)}%`;
const counted = (number, noun) => `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;
const say = (id, text) => { $(id).textContent = text; };

// Problems are said in one place; a missing key opens the form for it.
const trying = async work => {
  say("problem", "");
  try {
    await work();
  } catch (error) {
    if (error instanceof KeyMissing) {
      if (!$("key-form").hidden) say("problem", "That is not the server's key.");
      $("key-form").hidden = false;
      $("key").focus();
    } else if (error.name !== "AbortError") {
      say("problem", error instanceof TypeError ? "The server cannot be reached." : error.message);
    }
  }
};

const open = () => trying(async () => {
  model = await ask("v1/model");
  $("key-form").hidden = true;
  const { run, base_model, metrics } = model.about.made_from ?? {};
  const known = [run && `model ${run}`, base_model && `made from ${base_model}`,
    Number.isFinite(metrics?.accuracy) && `accuracy ${percent(metrics.accuracy)} on its test split`,
    `labels: ${model.labels.join(", ")}`];
  say("model", known.filter(Boolean).join(" · "));
  say("card-text", model.card);
  for (const each of document.querySelectorAll(".pair")) each.hidden = !model.pairs;
  $("card").hidden = !model.card;
});

const bars = (probabilities, first) => element("dl", {}, ...probabilities.flatMap(({ label, probability }, index) => {
  const className = first && !index ? "first" : "", bar = element("span");
  bar.style.width = percent(probability);
  return [element("dt", { className, text: label }), element("dd", { className: "bar", ariaHidden: "true" }, bar),
    element("dd", { className, text: percent(probability) })];
}));

const answerOf = (text, { probabilities }) => {
  const rest = probabilities.slice(MOST_BARS);
  const texts = typeof text === "string" ? [text] : [text.text, text.text_pair];
  return element("li", {}, ...texts.map(each => element("div", { className: "text", text: each })), bars(probabilities.slice(0, MOST_BARS), true),
    ...(rest.length ? [element("details", {}, element("summary", { text: counted(rest.length, "more label") }), bars(rest))] : []));
};

const linesOf = id => $(id).value.split(/\r\n|\r|\n/);

// What was entered: texts, or pairs of those that stand in one line of both.
const entered = () => {
  const firsts = linesOf("texts");
  if (!model.pairs) return firsts.filter(line => line.trim());
  const seconds = linesOf("others");
  const pairs = Array.from({ length: Math.max(firsts.length, seconds.length) }, (_, line) =>
    ({ line, text: firsts[line] ?? "", text_pair: seconds[line] ?? "" })).filter(pair => pair.text.trim() || pair.text_pair.trim());
  const alone = pairs.find(pair => !pair.text.trim() || !pair.text_pair.trim());
  if (alone) throw new Error(`Line ${alone.line + 1} has one text; this model reads pairs.`);
  return pairs.map(({ text, text_pair }) => ({ text, text_pair }));
};

const classify = () => trying(async () => {
  if (!model) await open();
  if (!model) return;
  const texts = entered();
  if (!texts.length) throw new Error("Enter a text first.");
  if (texts.length > MOST_LINES) throw new Error(`${counted(texts.length, "line")}: for more than ${MOST_LINES}, take a file.`);
  $("classify").disabled = true;
  try {
    const results = [];
    for (let from = 0; from < texts.length; from += model.limits.max_texts) {
      const part = texts.slice(from, from + model.limits.max_texts);
      results.push(...(await ask("v1/classify", { texts: part })).results);
    }
    $("answers").replaceChildren(...results.map((result, index) => answerOf(texts[index], result)));
    const counts = new Map();
    for (const { label } of results) counts.set(label, (counts.get(label) ?? 0) + 1);
    const said = [...counts].sort((a, b) => b[1] - a[1]).map(([label, number]) => `${number.toLocaleString("en")} ${label}`);
    const only = results.length === 1 ? `${results[0].label}, ${percent(results[0].confidence)} sure` : said.join(", ");
    say("status", `${counted(results.length, model.pairs ? "pair" : "text")}: ${only}.`);
  } finally { $("classify").disabled = false; }
});

const choose = file => trying(async () => {
  for (const id of ["choice", "work", "result"]) $(id).hidden = true;
  say("file-status", "");
  if (!file) return;
  chosen = { file, ...(await headerOf(file)) };
  for (const [id, wanted] of [["column", "text"], ["other-column", "text_pair"]]) {
    $(id).replaceChildren(...chosen.header.map((name, index) => element("option", { text: name || `column ${index + 1}`, value: index })));
    const found = chosen.header.findIndex(name => name.trim().toLowerCase() === wanted);
    const free = chosen.header.findIndex((_, index) => id === "column" || index !== Number($("column").value));
    $(id).value = Math.max(found < 0 ? free : found, 0);
  }
  $("choice").hidden = false;
  say("file-status", `${file.name}: ${counted(chosen.header.length, "column")}.`);
});

let link = "";
const label = () => trying(async () => {
  const taken = chosen;
  if (!model) await open();
  if (!model) return;
  const columns = ["column", ...(model.pairs ? ["other-column"] : [])].map(id => Number($(id).value));
  if (new Set(columns).size < columns.length) throw new Error("Choose two columns: this model reads pairs.");
  const stopping = new AbortController(), stop = () => stopping.abort();
  $("stop").addEventListener("click", stop);
  for (const [id, shown] of [["work", true], ["stop", true], ["result", false]]) $(id).hidden = !shown;
  $("start").disabled = $("file").disabled = true;
  $("progress").value = 0;
  let last = 0;
  const told = (share, rows) => {
    $("progress").value = share;
    if (Date.now() - last > 2000) { say("file-status", `${counted(rows, "row")} labelled …`); last = Date.now(); }
  };
  const { parts, rows, problems, failed } =
    await labelFile({ ...taken, columns, model, signal: stopping.signal, told });
  $("stop").removeEventListener("click", stop);
  for (const id of ["work", "stop"]) $(id).hidden = true;
  $("start").disabled = $("file").disabled = false;
  URL.revokeObjectURL(link);
  link = URL.createObjectURL(new Blob(parts, { type: "text/csv" }));
  const [, stem, suffix = ".csv"] = /^(.*?)(\.\w+)?$/.exec(taken.file.name), name = `${stem}-labelled${suffix}`;
  Object.assign($("download"), { href: link, download: name, textContent: `Save ${name}` });
  $("result").hidden = !rows;
  say("file-status", `${failed ? "Ended early: " : ""}${counted(rows - problems, "row")} labelled`
    + `${problems ? `, ${problems.toLocaleString("en")} not, for the reason in the last column` : ""}.`);
  if (failed) throw failed;
  $("download").focus();
});

const onSubmit = (id, work) => $(id).addEventListener("submit", event => { event.preventDefault(); work(); });
onSubmit("ask", classify);
onSubmit("file-form", label);
onSubmit("key-form", () => { useKey($("key").value); open(); });
for (const id of ["texts", "others"]) $(id).addEventListener("keydown", event => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); classify(); }
});
$("file").addEventListener("change", event => choose(event.target.files[0]));
const drop = $("drop");
for (const kind of ["dragover", "dragleave", "drop"]) drop.addEventListener(kind, event => {
  event.preventDefault();
  drop.classList.toggle("over", kind === "dragover");
});
drop.addEventListener("drop", event => { if (!$("file").disabled) choose(event.dataTransfer.files[0]); });  // not while one is labelled
for (const kind of ["dragover", "drop"]) addEventListener(kind, event => event.preventDefault());  // beside it: not opened
open();

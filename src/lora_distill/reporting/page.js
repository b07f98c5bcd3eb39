"use strict";
const table = document.getElementById("table"), body = table.tBodies[0];
const value = (row, index) => row.cells[index].dataset.value ?? row.cells[index].querySelector("a").textContent;
table.tHead.querySelectorAll("th").forEach((heading, index) => heading.firstElementChild.addEventListener("click", () => {
  const down = heading.getAttribute("aria-sort") === "ascending";
  table.tHead.querySelectorAll("th").forEach(each => each.setAttribute("aria-sort", "none"));
  heading.setAttribute("aria-sort", down ? "descending" : "ascending");
  const compare = (a, b) => index ? value(a, index) - value(b, index) : value(a, 0).localeCompare(value(b, 0));
  body.append(...[...body.rows].sort((a, b) => down ? compare(b, a) : compare(a, b)));
}));
const filter = document.getElementById("filter");
if (filter) filter.addEventListener("input", () => {
  for (const row of body.rows) row.hidden = !row.cells[0].textContent.toLowerCase().includes(filter.value.toLowerCase());
});
const pairs = JSON.parse(document.getElementById("pairs").textContent);
for (const each of pairs) each.said = new Map(each.said);
const choices = [...document.querySelectorAll(".choose select")], differences = document.getElementById("differences");
const compareTwo = () => {
  const two = choices.map(each => pairs[each.value]);
  const keys = [...new Set(two.flatMap(each => [...each.said.keys()]))];
  const lines = keys.map(key => [key, ...two.map(each => each.said.get(key) ?? "–")]).filter(line => line[1] !== line[2]);
  differences.tHead.replaceChildren(row("col", ["", ...two.map(each => each.name)]));
  differences.tBodies[0].replaceChildren(...lines.map(line => row("row", line)));
};
const row = (scope, texts) => {
  const made = document.createElement("tr");
  texts.forEach((text, index) => {
    const cell = made.appendChild(document.createElement(scope === "row" && index ? "td" : "th"));
    cell.textContent = text;
    if (cell.tagName === "TH") cell.scope = scope;
  });
  return made;
};
choices.forEach(each => each.addEventListener("change", compareTwo));
if (choices.length) compareTwo();
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach(each => { each.open = true; }));

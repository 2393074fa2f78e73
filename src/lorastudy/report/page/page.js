"use strict";
// Hints under the pointer at once, and on touch; without this script browsers show the titles.
const hint = document.createElement("div");
hint.id = "hint";
hint.hidden = true;
document.body.append(hint);
for (const title of document.querySelectorAll(".chart svg title")) {
  const owner = title.parentElement;
  owner.hintText = title.textContent;
  title.remove();
}
function hintOf(target) {
  let node = target;
  while (node && node.hintText === undefined) node = node.parentElement;
  return node ? node.hintText : undefined;
}
document.addEventListener("pointerover", (event) => {
  const text = event.target instanceof Element ? hintOf(event.target) : undefined;
  hint.hidden = text === undefined;
  if (text === undefined) return;
  hint.textContent = text;
  const x = Math.min(event.clientX + 14, innerWidth - hint.offsetWidth - 8);
  const below = event.clientY + 18;
  const fits = below + hint.offsetHeight < innerHeight;
  hint.style.left = `${Math.max(8, x)}px`;
  hint.style.top = `${fits ? below : event.clientY - hint.offsetHeight - 10}px`;
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") hint.hidden = true;
});
// Columns sort by the value that programs read, else by the text; absent values stay last.
function valueOf(row, column) {
  const cell = row.cells[column];
  return cell.dataset.value === undefined ? cell.textContent : Number(cell.dataset.value);
}
function compare(a, b) {
  const isText = typeof a === "string";
  if (isText !== (typeof b === "string")) return isText ? 1 : -1;
  return isText ? a.localeCompare(b) : a - b;
}
function sortBy(table, head, column) {
  const falls = head.getAttribute("aria-sort") === "ascending";
  for (const other of table.querySelectorAll("th")) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", falls ? "descending" : "ascending");
  const rows = Array.from(table.tBodies[0].rows);
  rows.sort((a, b) => {
    const [x, y] = [valueOf(a, column), valueOf(b, column)];
    const areAlike = typeof x === typeof y;
    return falls && areAlike ? compare(y, x) : compare(x, y);
  });
  table.tBodies[0].append(...rows);
}
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = Array.from(table.tHead.rows).at(-1).cells;
  Array.from(heads).forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => sortBy(table, head, column));
  });
}

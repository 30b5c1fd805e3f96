"use strict";
// Sorting: a button in a column's head sorts each body of its table; the second press turns it round.
for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => {
    const head = button.closest("th");
    const table = head.closest("table");
    const place = [...head.parentNode.children].indexOf(head);
    const numeric = head.dataset.kind === "number";
    const now = head.getAttribute("aria-sort");
    // Figures are wanted from the top, names from the start.
    const up = now ? now === "descending" : !numeric;
    for (const other of table.querySelectorAll("th[aria-sort]")) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const key = (row) => {
      const cell = row.children[place];
      const text = cell.dataset.value ?? cell.textContent.trim();
      return numeric ? Number(text) : text;
    };
    for (const body of table.tBodies) {
      const rows = [...body.rows].map((row) => [key(row), row]);
      rows.sort(([a], [b]) => (up ? 1 : -1) * (numeric ? a - b : a.localeCompare(b)));
      body.append(...rows.map(([, row]) => row));
    }
  });
}
// Profiles: each has a body of the table of tags.
for (const radio of document.querySelectorAll("input[name=profile]")) {
  radio.addEventListener("change", () => {
    for (const body of document.querySelectorAll("tbody[data-profile]")) {
      body.hidden = body.dataset.profile !== radio.value;
    }
  });
}
// Sheets: opened one by one, all at once, by a link to one, and for the printer.
const sheets = [...document.querySelectorAll("details.sheet")];
const all = document.getElementById("open-all");
if (all) {
  all.hidden = false;
  all.addEventListener("click", () => {
    const open = !sheets.every((sheet) => sheet.open);
    for (const sheet of sheets) sheet.open = open;
    all.textContent = open ? "Close all tags" : "Open all tags";
  });
}
const openTarget = () => {
  const sheet = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (sheet && sheet.matches("details")) {
    sheet.open = true;
    sheet.scrollIntoView();
  }
};
addEventListener("hashchange", openTarget);
openTarget();
let closed = [];
addEventListener("beforeprint", () => {
  closed = sheets.filter((sheet) => !sheet.open);
  for (const sheet of closed) sheet.open = true;
});
addEventListener("afterprint", () => {
  for (const sheet of closed) sheet.open = false;
});

"use strict";
for (const table of document.querySelectorAll("table")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.firstElementChild.addEventListener("click", () => {
    const order = head.getAttribute("aria-sort");
    const down = order === "ascending" || (order === "none" && head.classList.contains("number"));
    for (const other of heads) other.setAttribute("aria-sort", "none");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const key = row => {
      const cell = row.cells[column];
      return cell.dataset.key === undefined ? cell.textContent : Number(cell.dataset.key);
    };
    const compare = (a, b) => {
      if (typeof a === typeof b) {
        return typeof a === "number" ? a - b : a.localeCompare(b, "en", {numeric: true});
      }
      return typeof a === "number" ? -1 : 1;
    };
    const body = table.tBodies[0];
    const rows = [...body.rows].map(row => [key(row), row]);
    // Cells without a number stay at the end, whichever way numbers are sorted.
    rows.sort(([a], [b]) => typeof a === typeof b && down ? compare(b, a) : compare(a, b));
    body.append(...rows.map(([, row]) => row));
  }));
}

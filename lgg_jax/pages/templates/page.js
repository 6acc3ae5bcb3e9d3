// A click on a column header sorts the table. Cells without a value are last in both directions.
for (const button of document.querySelectorAll("th button")) button.addEventListener("click", () => {
  const head = button.parentElement, body = head.closest("table").tBodies[0];
  const way = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
  for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", way === 1 ? "ascending" : "descending");
  const value = row => row.cells[head.cellIndex].dataset.value;
  const compare = head.className === "number" ? (a, b) => a - b : (a, b) => a.localeCompare(b, "en", {numeric: true});
  body.append(...[...body.rows].sort((a, b) => {
    const [first, second] = [value(a), value(b)];
    if (first === undefined || second === undefined) return (first === undefined) - (second === undefined);
    return way * compare(first, second);
  }));
});

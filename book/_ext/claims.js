/* Searches, filters and sorts the claims ledger. The rows are in the page; nothing is fetched. */
(() => {
  "use strict";

  function start() {
    const table = document.querySelector("table.kv-claims");
    const form = document.querySelector("form.kv-tools");
    if (!table || !form) return;
    const body = table.tBodies[0];
    const published = [...body.rows];
    const buttons = [...table.tHead.querySelectorAll("button")];
    const texts = new Map(published.map((row) => [row, row.textContent.toLowerCase()]));
    const { text, verdict, run, section, order } = form.elements;
    let column = -1;
    let direction = 1;

    function filter() {
      const words = text.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      for (const row of published) {
        const fits =
          (!verdict.value || row.dataset.verdict === verdict.value) &&
          (!run.value || row.dataset.run === run.value) &&
          (!section.value || row.dataset.section === section.value) &&
          words.every((word) => texts.get(row).includes(word));
        row.hidden = !fits;
        shown += fits;
      }
      form.querySelector("output").value = `${shown} of ${published.length}`;
    }

    function key(row) {
      const cell = row.cells[column];
      if (cell.dataset.key === undefined) return cell.textContent.toLowerCase();
      return cell.dataset.key === "" ? NaN : Number(cell.dataset.key);
    }

    function compare(a, b) {
      const [x, y] = [key(a), key(b)];
      if (typeof x === "string") return direction * x.localeCompare(y);
      // Rows without a number stay at the end in both directions.
      if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y);
      return direction * (x - y);
    }

    function sort(next) {
      direction = next === column ? -direction : 1;
      column = next;
      order.value = column < 0 ? "" : String(column);
      body.append(...(column < 0 ? published : [...published].sort(compare)));
      buttons.forEach((button, i) => {
        const head = button.parentElement;
        if (i === column) head.setAttribute("aria-sort", direction > 0 ? "ascending" : "descending");
        else head.removeAttribute("aria-sort");
      });
    }

    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("input", (event) => {
      if (event.target === order) sort(order.value === "" ? -1 : Number(order.value));
      else filter();
    });
    buttons.forEach((button, i) => button.addEventListener("click", () => sort(i)));
    for (const link of document.querySelectorAll(".kv-counts a")) {
      link.addEventListener("click", () => {
        verdict.value = link.dataset.verdict;
        filter();
      });
    }
    form.hidden = false;
    filter();
  }

  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();

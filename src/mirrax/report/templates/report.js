"use strict";

// Tables sort by the numbers behind their cells; cells without one come last, whatever the order.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, index) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const order = head.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", order);
      sort(table.tBodies[0], index, head.classList.contains("number"), order === "ascending" ? 1 : -1);
    });
  });
}

function sort(body, index, numeric, sign) {
  const compare = numeric ? (a, b) => a - b : (a, b) => a.localeCompare(b, "en", { numeric: true });
  const value = (row) => row.cells[index].dataset.value;
  const known = [...body.rows].filter((row) => value(row) !== "");
  const missing = [...body.rows].filter((row) => value(row) === "");
  body.append(...known.sort((one, two) => sign * compare(value(one), value(two))), ...missing);
}

// Commands can be copied; where the clipboard is closed to the page, they are selected instead.
for (const command of document.querySelectorAll(".command")) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = "Copy";
  command.append(button);
  button.addEventListener("click", async () => {
    const code = command.querySelector("code");
    try {
      await navigator.clipboard.writeText(code.textContent);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(code);
      button.textContent = document.execCommand("copy") ? "Copied" : "Selected";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  });
}

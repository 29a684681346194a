/* The planner: answers from the forecasts in the page as domains are ticked and the budget moves.
 * Without this script the form stays hidden and the table of all forecasts remains. */
(() => {
  "use strict";

  function signed(value) {
    return (value < 0 ? "−" : "+") + Math.abs(value).toFixed(1);
  }

  function start(block) {
    const plan = JSON.parse(block.querySelector("script").textContent);
    const form = block.querySelector("form");
    const said = form.querySelector(".kv-answer");
    const reach = form.querySelector(".kv-reach");
    // A string in place of numbers says why there is no forecast.
    const all = plan.gains.flatMap((gains) => Object.values(gains)).filter(Array.isArray);
    const bottom = Math.min(0, ...all.map((row) => row[1]));
    const top = Math.max(0, ...all.map((row) => row[2]));
    const place = (value) => `${(100 * (value - bottom)) / (top - bottom || 1)}%`;

    function update() {
      const chosen = [...form.querySelectorAll("[name=domain]:checked")].map((box) => +box.value);
      const index = +form.elements.budget.value;
      const budget = plan.budgets[index];
      const steps = `${budget.steps} steps`;
      form.elements.steps.value = steps;
      form.elements.budget.setAttribute("aria-valuetext", steps);
      reach.hidden = true;
      if (chosen.length < 2) {
        said.textContent = "Choose at least two domains.";
        return;
      }
      const row = plan.gains[index][chosen.reduce((sum, k) => sum + 2 ** k, 0)];
      let told = `No forecast: ${row}.`;
      if (Array.isArray(row)) {
        const [gain, low, high] = row;
        reach.hidden = false;
        reach.style.setProperty("--low", place(low));
        reach.style.setProperty("--high", place(high));
        reach.style.setProperty("--gain", place(gain));
        told =
          `Predicted gain over the best specialist: ${signed(gain)} % (80 % interval ` +
          `${signed(low)} to ${signed(high)}).`;
      }
      const tokens = ((chosen.length * budget.tokens) / 1e6).toFixed(2);
      const minutes = ((chosen.length * budget.seconds) / 60).toFixed(1);
      said.textContent =
        `${told} Cost: ${chosen.length} specialists × ${steps}, ` +
        `${tokens} million tokens, ${minutes} core-minutes; of these the probes take ` +
        `${budget.probe} steps each, and come first. The bank of ${budget.bank_recipes} recipes ` +
        `that taught the forecast was trained in full before that, once, for all domains: ` +
        `${(budget.bank_tokens / 1e6).toFixed(2)} million tokens.`;
    }

    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("input", update);
    form.hidden = false;
    update();
  }

  function startAll() {
    document.querySelectorAll(".kv-planner").forEach(start);
  }

  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", startAll);
  else startAll();
})();

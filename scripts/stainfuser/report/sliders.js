document.documentElement.classList.add("js");
document.querySelectorAll(".compare input").forEach((input) => {
  const stage = input.parentElement;
  const move = () => stage.style.setProperty("--at", input.value + "%");
  input.addEventListener("input", move);
  move();
});
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((d) => (d.open = true)));

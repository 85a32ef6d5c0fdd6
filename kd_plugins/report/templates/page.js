"use strict";
for (const box of document.querySelectorAll(".compare")) {
  const range = box.querySelector("input");
  const selects = box.parentElement.querySelectorAll("select");
  const show = () => {
    box.style.setProperty("--at", range.value + "%");
    range.setAttribute("aria-valuetext", `${selects[0].value} up to ${range.value} percent, then ${selects[1].value}`);
  };
  const move = (event) => {
    const place = box.getBoundingClientRect();
    range.value = (100 * (event.clientX - place.left)) / place.width;
    show();
  };
  range.addEventListener("input", show);
  box.addEventListener("pointerdown", (event) => {
    event.preventDefault();
    box.setPointerCapture(event.pointerId);
    range.focus({ preventScroll: true });
    move(event);
  });
  box.addEventListener("pointermove", (event) => {
    if (box.hasPointerCapture(event.pointerId)) move(event);
  });
  const chosen = [selects[0].value, selects[1].value];
  selects.forEach((select, index) => {
    select.addEventListener("change", () => {
      if (select.value === chosen[1 - index]) selects[1 - index].value = chosen[index]; // both sides the same: they swap
      chosen[0] = selects[0].value;
      chosen[1] = selects[1].value;
      for (const image of box.querySelectorAll("img")) {
        image.classList.toggle("left", image.dataset.role === chosen[0]);
        image.classList.toggle("right", image.dataset.role === chosen[1]);
      }
      show();
    });
  });
  show();
}

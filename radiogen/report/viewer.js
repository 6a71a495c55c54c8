/* The viewer of a case: three planes and a solid view by NiiVue; what is shown stands in #viewer-about. */
"use strict";
(async () => {
  const about = JSON.parse(document.getElementById("viewer-about").textContent);
  const find = (id) => document.getElementById(id);
  const viewer = find("viewer");
  const give_up = (why) => {
    viewer.classList.add("still");
    find("viewer-why").textContent = why + " The pictures below show the case.";
  };
  if (!document.createElement("canvas").getContext("webgl2")) {
    return give_up("This browser has no WebGL2, so there is nothing to scroll through.");
  }

  // A volume lies in the page as base64, or beside it under an address.
  const bytes_of = async (volume) => {
    if (volume.url) {
      const answer = await fetch(volume.url);
      if (!answer.ok) throw new Error(volume.url + " was not given");
      return answer.arrayBuffer();
    }
    const text = atob(find("volume-" + volume.name).textContent);
    const bytes = new Uint8Array(text.length);
    for (let at = 0; at < text.length; at += 1) bytes[at] = text.charCodeAt(at);
    return bytes.buffer;
  };
  const image_of = async (volume, how) => {
    const file = new File([await bytes_of(volume)], volume.name + ".nii.gz");
    return niivue.NVImage.loadFromFile({ file, name: file.name, ...how });
  };
  // Labels have the colour of their mask; what fills them is faint or nothing, their edge is NiiVue's outline.
  const labels_of = (mask, alpha) => {
    const shades = [[0, 0, 0, 0], ...mask.colors.map((color) => [...color, alpha])];
    const [R, G, B, A] = [0, 1, 2, 3].map((part) => shades.map((shade) => shade[part]));
    return { R, G, B, A, I: shades.map((_, label) => label), labels: shades.map(() => "") };
  };
  const attached = async (canvas, options) => {
    const view = new niivue.Niivue({
      logLevel: "silent", loadingText: "", isResizeCanvas: true, dragAndDropEnabled: false,
      isRadiologicalConvention: true, sagittalNoseLeft: true, backColor: [0, 0, 0, 1],
      crosshairColor: [0.94, 0.89, 0.26, 0.75], crosshairWidth: 1, crosshairWidthUnit: "mm", show3Dcrosshair: true, isColorbar: false,
      fontMinPx: 12, ...options,
    });
    await view.attachToCanvas(canvas, true);
    return view;
  };

  const first = about.windows[0];
  const planes = await attached(find("viewer-planes"), {
    multiplanarShowRender: niivue.SHOW_RENDER.NEVER,
    crosshairGap: 12, isAlphaClipDark: true, tileMargin: 4,
  });
  planes.addVolume(await image_of(about.ct, {
    colormap: "gray", cal_min: first.low_hu, cal_max: first.high_hu, trustCalMinMax: false,
  }));
  const masks = [];
  for (const about_it of about.masks) {
    const image = await image_of(about_it, {});
    masks.push({ about: about_it, image, shown: true });
    planes.addVolume(image);
  }
  // A mask is an edge (NiiVue outlines what is marked as labels, code 1002), or filled, or not there.
  const draw_masks = () => {
    const filled = find("viewer-fill").checked;
    for (const { about: it, image, shown } of masks) {
      image.hdr.intent_code = shown && !filled && !it.is_edge ? 1002 : 0;
      image.setColormapLabel(labels_of(it, shown && (filled || it.is_edge) ? 255 : 0));
      image.opacity = !shown ? 0 : filled && !it.is_edge ? 0.45 : 1;
    }
    planes.opts.atlasOutline = filled ? 0 : 1;
    planes.updateGLVolume();
  };
  draw_masks();
  const { AXIAL, CORONAL, SAGITTAL } = niivue.SLICE_TYPE;
  const arranged = [
    { sliceType: AXIAL, position: [0, 0, 0.62, 1] },
    { sliceType: CORONAL, position: [0.62, 0, 0.38, 0.5] },
    { sliceType: SAGITTAL, position: [0.62, 0.5, 0.38, 0.5] },
  ];
  planes.setCustomLayout(arranged);

  let solid = null;
  if (about.solids.length) {
    solid = await attached(find("viewer-solid"), { isOrientCube: true });
    for (const part of about.solids) {
      const [red, green, blue] = part.color;
      solid.addColormap(part.name, {
        R: [red, red, red, red], G: [green, green, green, green], B: [blue, blue, blue, blue],
        A: [0, 0, part.alpha, part.alpha], I: [0, 90, 150, 255],
      });
      solid.addVolume(await image_of(part, { colormap: part.name, cal_min: 0, cal_max: 255 }));
    }
    solid.setSliceType(solid.sliceTypeRender);
    solid.setRenderAzimuthElevation(200, 12);
    solid.setScale(1.6);
    await solid.setVolumeRenderIllumination(0.6);
  }
  const views = solid ? [planes, solid] : [planes];

  // Positions on the page are LPS, those of NiiVue RAS.
  const flip = ([x, y, z]) => [-x, -y, z];
  const go_to = (lps_mm) => {
    for (const view of views) {
      view.scene.crosshairPos = view.mm2frac(flip(lps_mm));
      view.drawScene();
    }
    planes.createOnLocationChange();
  };
  const follow = (view, others) => {
    view.onLocationChange = (at) => {
      const lps = flip([at.mm[0], at.mm[1], at.mm[2]]);
      for (const other of others) {
        other.scene.crosshairPos = other.mm2frac(flip(lps));
        other.drawScene();
      }
      const [x, y, z] = lps.map((value) => value.toFixed(1));
      const hu = planes.volumes[0].getValue(...planes.frac2vox(planes.mm2frac(flip(lps))));
      find("viewer-at").textContent = `x ${x}  y ${y}  z ${z} mm (LPS) · ${Math.round(hu)} HU`;
    };
  };
  // What `radiogen segment --point` takes. A page that may not write to the clipboard shows it to be copied by hand.
  const copy_place = async () => {
    const [x, y, z] = planes.frac2mm(planes.scene.crosshairPos);
    // `+ 0` makes 0 of -0.
    const text = flip([x, y, z]).map((value) => (Math.round(10 * value) / 10 + 0).toFixed(1)).join(",");
    let verdict = " copied";
    try { await navigator.clipboard.writeText(text); } catch { verdict = ""; }
    find("viewer-copied").textContent = text + verdict;
  };
  find("viewer-planes").addEventListener("click", copy_place);
  follow(planes, solid ? [solid] : []);
  if (solid) follow(solid, [planes]);

  const press = (pressed, group) => {
    for (const one of viewer.querySelectorAll(`[data-${group}]`)) {
      one.setAttribute("aria-pressed", String(one === pressed));
    }
  };
  for (const button of viewer.querySelectorAll("[data-window]")) {
    button.addEventListener("click", () => {
      const { low_hu, high_hu } = about.windows[Number(button.dataset.window)];
      Object.assign(planes.volumes[0], { cal_min: low_hu, cal_max: high_hu });
      planes.updateGLVolume();
      press(button, "window");
    });
  }
  for (const button of viewer.querySelectorAll("[data-view]")) {
    button.addEventListener("click", () => {
      const only = Number(button.dataset.view);
      planes.setCustomLayout(only < 0 ? arranged : [{ sliceType: only, position: [0, 0, 1, 1] }]);
      press(button, "view");
    });
  }
  for (const box of viewer.querySelectorAll("[data-mask]")) {
    box.addEventListener("change", () => {
      masks.find((mask) => mask.about.name === box.dataset.mask).shown = box.checked;
      draw_masks();
    });
  }
  find("viewer-fill").addEventListener("change", draw_masks);
  for (const button of document.querySelectorAll("[data-lesion]")) {
    button.hidden = false;
    button.addEventListener("click", () => {
      go_to(JSON.parse(button.dataset.lesion));
      press(button, "lesion");
      viewer.scrollIntoView({ block: "nearest" });
    });
  }
  go_to(about.start_mm);
  viewer.classList.add("ready");
  window.radiogenViewer = { planes, solid, goTo: go_to };
})().catch((error) => {
  document.getElementById("viewer").classList.add("still");
  document.getElementById("viewer-why").textContent = `The viewer cannot start (${error.message}). The pictures below show the case.`;
});

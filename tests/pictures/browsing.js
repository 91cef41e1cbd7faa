async (pictures, columns, rows) => {
  const cells = (source, width, height) => {
    const canvas = new OffscreenCanvas(width, height);
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(source, 0, 0);
    const found = [];
    for (let row = 0; row < rows; row++) {
      for (let column = 0; column < columns; column++) {
        const [wide, high] = [width / columns, height / rows].map((size) => Math.max(Math.floor(size / 3), 1));
        const x = Math.floor(((column + 0.5) * width) / columns - wide / 2);
        const y = Math.floor(((row + 0.5) * height) / rows - high / 2);
        const { data } = context.getImageData(x, y, wide, high);
        const sums = [0, 0, 0, 0];
        for (let at = 0; at < data.length; at += 4) {
          for (let band = 0; band < 3; band++) sums[band] += (data[at + band] * data[at + 3]) / 255;
          sums[3] += data[at + 3];
        }
        found.push(sums.map((sum) => Math.round((sum * 4) / data.length)));
      }
    }
    return found;
  };
  const shown = (url) =>
    new Promise((resolve) => {
      const image = new Image();
      image.onload = () => resolve(image);
      image.onerror = () => resolve(null);
      image.src = url;
    });
  const moving = async (type, bytes) => {
    const decoder = new ImageDecoder({ type, data: bytes });
    const found = { frames: [], repetitions: 0 };
    try {
      await decoder.tracks.ready;
      await decoder.completed;
      const track = decoder.tracks.selectedTrack;
      found.repetitions = track.repetitionCount === Infinity ? null : track.repetitionCount;
      for (let frameIndex = 0; track.animated && frameIndex < track.frameCount; frameIndex++) {
        const { image } = await decoder.decode({ frameIndex });
        found.frames.push([(image.duration ?? 0) / 1000, cells(image, image.displayWidth, image.displayHeight)]);
        image.close();
      }
    } catch (error) {
      found.error = String(error);
    }
    return found;
  };
  const told = {};
  for (const [name, [type, encoded]] of Object.entries(pictures)) {
    const bytes = Uint8Array.from(atob(encoded), (one) => one.charCodeAt(0));
    const url = URL.createObjectURL(new Blob([bytes], { type }));
    const image = await shown(url);
    const [width, height] = image ? [image.naturalWidth, image.naturalHeight] : [0, 0];
    const still = width && height ? cells(image, width, height) : null;
    told[name] = { width, height, still, ...(await moving(type, bytes)) };
    URL.revokeObjectURL(url);
  }
  return told;
}
